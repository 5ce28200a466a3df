/* SPDX-License-Identifier: MIT */
/* util/budget.h */
#include "../cmocka_all.h"

#include "util/budget.h"

static void takes_up_to_the_limit(void **state)
{
    struct mem_budget budget = {.limit_bytes = 100};

    assert_true(mem_budget_take(&budget, 60));
    assert_false(mem_budget_take(&budget, 41));
    assert_true(mem_budget_take(&budget, 40));
    assert_false(mem_budget_take(&budget, 1));
    assert_true(mem_budget_take(&budget, 0));
    mem_budget_give(&budget, 100);
    assert_int_equal(budget.used_bytes, 0);
}

static void does_not_wrap(void **state)
{
    struct mem_budget budget = {.limit_bytes = UINT64_MAX};

    assert_true(mem_budget_take(&budget, 10));
    assert_false(mem_budget_take(&budget, UINT64_MAX));
    assert_false(mem_budget_take(&budget, UINT64_MAX - 9));
    assert_true(mem_budget_take(&budget, UINT64_MAX - 10));
}

static void leaves_what_is_for_others(void **state)
{
    struct mem_budget budget = {.limit_bytes = 100};

    assert_true(mem_budget_take_leaving(&budget, 60, 40));
    assert_false(mem_budget_take_leaving(&budget, 1, 40));
    assert_true(mem_budget_take(&budget, 40));
    assert_false(mem_budget_take_leaving(&budget, 0, 1));
    mem_budget_give(&budget, 100);
    assert_false(mem_budget_take_leaving(&budget, 1, 200));
    assert_false(mem_budget_take_leaving(&budget, 1, UINT64_MAX));
    assert_true(mem_budget_take_leaving(&budget, 100, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(takes_up_to_the_limit),
        cmocka_unit_test(does_not_wrap),
        cmocka_unit_test(leaves_what_is_for_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
