/* Numbers that torch 2.15 drew. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/torch_rng.h"

static void same_permutations(void **state) {
    (void)state;
    static const struct {
        uint64_t seed;
        int64_t n;
        int k;
        int64_t want[12];
    } cases[] = {
        {777, 12, 12, {11, 7, 3, 8, 0, 2, 9, 6, 4, 10, 5, 1}},
        {777, 100000, 8, {85735, 8325, 37745, 38544, 55035, 28022, 3645, 82742}},
        {(UINT64_C(1) << 40) + 5,
         70000,
         8,
         {53411, 50200, 53621, 48915, 22746, 19670, 52000, 34947}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pf_torch_rng g;
        int64_t got[12];
        pf_torch_rng_init(&g, cases[i].seed);
        assert_int_equal(pf_torch_rng_permutation(&g, cases[i].n, cases[i].k, got, NULL), PEFT_OK);
        for (int k = 0; k < cases[i].k; k++) assert_int_equal(got[k], cases[i].want[k]);
    }
}

static void same_uniform_numbers(void **state) {
    (void)state;
    static const float want[] = {0.6605037450790405f, -0.7477781772613525f, 0.8149393796920776f,
                                 0.6398540735244751f, 0.8402068614959717f,  -0.766709566116333f};
    pf_torch_rng g;
    pf_torch_rng_init(&g, 5);
    for (int i = 0; i < 6; i++) {
        const float got = pf_torch_rng_uniform(&g, -1, 1);
        assert_true(got == want[i]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(same_permutations),
                                       cmocka_unit_test(same_uniform_numbers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
