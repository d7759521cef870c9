#include "base/thread.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

struct attributes {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period;
};

static struct attributes attributes(void)
{
    struct attributes a = {0};
    assert_int_equal(syscall(SYS_sched_getattr, 0, &a, sizeof a, 0), 0);
    return a;
}

static void *patient(void *result)
{
    thread_is_patient();
    *(struct attributes *)result = attributes();
    return NULL;
}

/* That thread alone has a long slice then, and neither its policy nor its niceness is another. */
static void one_thread_is_patient(void **state)
{
    (void)state;
    struct attributes before = attributes(), its;
    pthread_t t;
    assert_int_equal(pthread_create(&t, NULL, patient, &its), 0);
    pthread_join(t, NULL);
    struct attributes after = attributes();
    assert_int_equal(its.policy, before.policy);
    assert_int_equal(its.nice, before.nice);
    assert_int_equal(after.runtime, before.runtime);
    struct utsname system;
    unsigned major = 0, minor = 0;
    assert_int_equal(uname(&system), 0);
    if (before.policy == 0 && sscanf(system.release, "%u.%u", &major, &minor) == 2 && major * 100 + minor >= 612)
        assert_int_equal(its.runtime, 10000000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(one_thread_is_patient)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
