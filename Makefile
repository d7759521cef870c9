# make                    build/covey (release)
# make SAN=address        AddressSanitizer + UndefinedBehaviorSanitizer, in build-address/
# make SAN=thread         ThreadSanitizer, in build-thread/
# make SAN=debug          no optimization, assertions, in build-debug/
# make unit [DIR=store]   build and run the unit tests (of one folder: builds only what that folder may include)
# make sim [SIM_ARGS='--seed 8812']   build and run the cluster simulator
# make fuzzers CC=clang SAN=fuzz   libFuzzer programs with all of the code instrumented, in build-fuzz/
ifeq ($(origin CC),default)
CC := gcc
endif
SAN ?=
BUILD ?= build$(if $(SAN),-$(SAN))

PKGS := libxxhash liblzf libisal openssl lua5.1 lua5.1-cjson yaml-0.1 libmicrohttpd
WARN := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wvla -Wundef \
        -Wwrite-strings -Wno-unused-parameter -Wno-missing-field-initializers
CFLAGS_release := -O2 -g -fno-omit-frame-pointer
CFLAGS_debug := -O0 -g
CFLAGS_address := -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined
CFLAGS_thread := -O1 -g -fno-omit-frame-pointer -fsanitize=thread
CFLAGS_fuzz := $(CFLAGS_address) -fsanitize=fuzzer-no-link
VARIANT := $(if $(SAN),$(SAN),release)
LIBC_MALLOC := $(if $(filter address thread fuzz,$(SAN)),1,0)

# aarch64 fuses a product and a sum into one rounding where it is let; distances and scores then differ from redis-server's
# in the last digit.  The x86-64 that we build for has no such instruction.
FP := $(if $(findstring aarch64,$(shell $(CC) -dumpmachine)),-ffp-contract=off)

CFLAGS := $(FP) -std=gnu11 -pthread -D_GNU_SOURCE -DCOVEY_LIBC_MALLOC=$(LIBC_MALLOC) -Isrc $(WARN) \
          $(CFLAGS_$(VARIANT)) $(shell pkg-config --cflags $(PKGS)) $(EXTRA_CFLAGS)
LDLIBS := $(shell pkg-config --libs $(PKGS)) $(if $(filter 0,$(LIBC_MALLOC)),-lmimalloc) -lm
LDFLAGS := -pthread $(CFLAGS_$(VARIANT))

# The folders and who may use whom: one list, also checked against the #include lines.
FOLDERS := $(shell sed -n 's/^\([a-z/]*\) *:.*/\1/p' src/ARROWS)
arrows = $(shell sed -n 's|^$(1) *: *||p' src/ARROWS)
closure = $(sort $(1) $(foreach d,$(call arrows,$(1)),$(call closure,$(d))))
sources = $(filter-out %_test.c %_fuzz.c,$(wildcard src/$(1)/*.c))
objects = $(patsubst src/%.c,$(BUILD)/%.o,$(call sources,$(1)))
lib = $(BUILD)/lib$(subst /,_,$(1)).a

LIBS := $(foreach d,$(filter-out main,$(FOLDERS)),$(call lib,$(d)))

all: $(BUILD)/covey

$(BUILD)/covey: $(BUILD)/main.o $(LIBS)
	@echo "  LINK $@"
	@$(CC) $(LDFLAGS) -o $@ $< -Wl,--start-group $(LIBS) -Wl,--end-group $(LDLIBS)

$(BUILD)/%.o: src/%.c
	@mkdir -p $(@D)
	@echo "  CC   $<"
	@$(CC) $(CFLAGS) -MMD -MP -c -o $@ $<

define folder_lib
$(call lib,$(1)): $(call objects,$(1))
	@mkdir -p $$(@D)
	@rm -f $$@
	@ar rcs $$@ $$^
endef
$(foreach d,$(filter-out main,$(FOLDERS)),$(eval $(call folder_lib,$(d))))

# A unit test links its folder and the folders that may be used from there, nothing else.
DIR ?=
TEST_FOLDERS := $(if $(DIR),$(DIR),$(filter-out main,$(FOLDERS)))
# Faults of allocation are planted in builds with the C library's allocator only.
ELSEWHERE := $(if $(filter 0,$(LIBC_MALLOC)),%/fault_test.c)
tests_of = $(patsubst src/%.c,$(BUILD)/tests/%,$(filter-out $(ELSEWHERE),$(wildcard src/$(1)/*_test.c)))
UNIT_TESTS := $(foreach d,$(TEST_FOLDERS),$(call tests_of,$(d)))

define folder_tests
$(call tests_of,$(1)): $(BUILD)/tests/$(1)/%: src/$(1)/%.c $(foreach d,$(call closure,$(1)),$(call lib,$(d)))
	@mkdir -p $$(@D)
	@echo "  TEST $$@"
	@$(CC) $(CFLAGS) -MMD -MP -MF $$@.d -o $$@ $$< -Wl,--start-group $(foreach d,$(call closure,$(1)),$(call lib,$(d))) -Wl,--end-group $(LDLIBS) -lcmocka
endef
$(foreach d,$(filter-out main,$(FOLDERS)),$(eval $(call folder_tests,$(d))))

unit-build: $(UNIT_TESTS)
unit: $(UNIT_TESTS)
	@for t in $(UNIT_TESTS); do $$t || exit 1; done

# libFuzzer programs need clang; CC=clang is set by the caller (./run).
FUZZERS := $(patsubst src/%.c,$(BUILD)/fuzz/%,$(wildcard src/*/*_fuzz.c src/*/*/*_fuzz.c))
define folder_fuzzers
$(patsubst src/%.c,$(BUILD)/fuzz/%,$(wildcard src/$(1)/*_fuzz.c)): $(BUILD)/fuzz/$(1)/%: src/$(1)/%.c $(foreach d,$(call closure,$(1)),$(call lib,$(d)))
	@mkdir -p $$(@D)
	@echo "  FUZZ $$@"
	@$(CC) $(CFLAGS) -fsanitize=fuzzer -MMD -MP -MF $$@.d -o $$@ $$< -Wl,--start-group $(foreach d,$(call closure,$(1)),$(call lib,$(d))) -Wl,--end-group $(LDLIBS)
endef
$(foreach d,$(filter-out main,$(FOLDERS)),$(eval $(call folder_fuzzers,$(d))))
fuzzers: $(FUZZERS)

# The cluster simulator: core and codec; the linker takes nothing else out of the libraries.
SIM_ARGS ?=
SIM_OBJECTS := $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/simulation/*.c))
$(BUILD)/tests/simulation/%.o: tests/simulation/%.c
	@mkdir -p $(@D)
	@echo "  CC   $<"
	@$(CC) $(CFLAGS) -MMD -MP -c -o $@ $<
$(BUILD)/sim: $(SIM_OBJECTS) $(foreach d,$(call closure,cluster),$(call lib,$(d)))
	@echo "  LINK $@"
	@$(CC) $(LDFLAGS) -o $@ $(SIM_OBJECTS) -Wl,--start-group $(foreach d,$(call closure,cluster),$(call lib,$(d))) -Wl,--end-group $(LDLIBS)
sim: $(BUILD)/sim
	$(BUILD)/sim $(SIM_ARGS)

# What the checks need to compile a file on their own.
print-cflags:
	@echo '$(CFLAGS)'
print-fuzzers:
	@echo '$(FUZZERS)'
print-tests:
	@echo '$(UNIT_TESTS)'

clean:
	rm -rf build build-address build-thread build-debug build-fuzz

.PHONY: all unit unit-build fuzzers sim print-cflags print-fuzzers print-tests clean
.SECONDARY:
-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
