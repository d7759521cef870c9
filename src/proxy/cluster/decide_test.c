/* Every command of the table is decided upon, and the decisions hold together. */
#include "base/mem.h"
#include "proxy/cluster/decide.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

static void no_command_is_forgotten(void **state)
{
    (void)state;
    unsigned forgotten = 0;
    for (int id = 0; id < CMD_ID_COUNT; id++) {
        const struct command *cmd = command_by_id((enum command_id)id);
        if (decision_of(cmd)->course != COURSE_NONE) continue;
        print_error("undecided: %s\n", cmd->name);
        forgotten++;
    }
    assert_int_equal(forgotten, 0);
}

static void refusals_say_why(void **state)
{
    (void)state;
    for (int id = 0; id < CMD_ID_COUNT; id++) {
        const struct decision *d = decision_of(command_by_id((enum command_id)id));
        bool may_refuse = d->course == COURSE_REFUSED || d->course == COURSE_ONE || d->course == COURSE_DEBUG;
        assert_true(may_refuse == (d->reason != NULL));
    }
}

/* What has keys goes by them, whatever else is said of it. */
static void keys_decide(void **state)
{
    (void)state;
    for (int id = 0; id < CMD_ID_COUNT; id++) {
        const struct command *cmd = command_by_id((enum command_id)id);
        int course = decision_of(cmd)->course;
        if (!command_has_keys(cmd) || course == COURSE_KEYS || course == COURSE_SPLIT) continue;
        assert_true(course == COURSE_TRANSACTION || course == COURSE_SUBSCRIBE || course == COURSE_EVERY);
    }
    assert_int_equal(decision_of(command_by_id(CMD_ID_GET))->course, COURSE_KEYS);
    assert_int_equal(decision_of(command_by_id(CMD_ID_MEMORY_USAGE))->course, COURSE_KEYS);
    assert_int_equal(decision_of(command_by_id(CMD_ID_CLUSTER_SLOTS))->course, COURSE_REFUSED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_command_is_forgotten),
        cmocka_unit_test(refusals_say_why),
        cmocka_unit_test(keys_decide),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
