/* test_cpu.c - levels in force, and figures of the machine. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/cpu.h"
#include "base/log.h"

static void forcing_only_lowers(void **state) {
    (void)state;
    pf_isa own = pf_cpu_level();
    for (pf_isa isa = PF_ISA_SCALAR; isa <= PF_ISA_AVX512; isa++) {
        pf_cpu_force(isa);
        assert_int_equal(pf_cpu_level(), isa < own ? isa : own);
        if (pf_cpu_level() < PF_ISA_AVX512) {
            assert_false(pf_cpu_has_avx512_bf16());
            assert_false(pf_cpu_has_avx512_vnni());
        }
    }
    assert_int_equal(pf_cpu_level(), own);
    assert_string_equal(pf_isa_name(PF_ISA_SCALAR), "scalar");
    assert_string_equal(pf_isa_name(PF_ISA_AVX2), "avx2");
    assert_string_equal(pf_isa_name(PF_ISA_AVX512), "avx512");
}

/* The level and the number of warnings of a fresh process with this PEFT_ISA. */
static int level_with(const char *wish) {
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(fds[1], STDOUT_FILENO);
        setenv("PEFT_ISA", wish, 1);
        execl("/proc/self/exe", "test_cpu", "--level", (char *)NULL);
        _exit(99);
    }
    close(fds[1]);
    char digit[16] = "";
    ssize_t n = read(fds[0], digit, sizeof digit - 1);
    close(fds[0]);
    int status;
    waitpid(pid, &status, 0);
    assert_true(n > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    return atoi(digit);
}

static void the_environment_lowers_too(void **state) {
    (void)state;
    int own = level_with("");
    assert_int_equal(level_with("scalar"), PF_ISA_SCALAR);
    assert_int_equal(level_with("avx2"), own < PF_ISA_AVX2 ? own : PF_ISA_AVX2);
    assert_int_equal(level_with("avx512"), own);
    assert_int_equal(level_with("sse9"), own + 100); /* and a warning */
}

static void memory_figures_are_plausible(void **state) {
    (void)state;
    uint64_t total = pf_memory_total(), free_now = pf_memory_available();
    assert_true(total > (64u << 20));
    assert_true(free_now > 0 && free_now <= total);
    assert_true(strlen(pf_cpu_model()) > 0);
    assert_true(pf_cpu_l2_bytes() >= (64u << 10));
    uint64_t before = pf_memory_anon();
    assert_true(before > 0);
    size_t size = (size_t)32 << 20;
    char *p = malloc(size);
    assert_non_null(p);
    memset(p, 1, size);
    uint64_t after = pf_memory_anon();
    /* sanitizers and rounding move it a little; ThreadSanitizer keeps a shadow of several times
     * what is written */
#ifdef __SANITIZE_THREAD__
    const uint64_t most = 10 * (uint64_t)size;
#else
    const uint64_t most = (uint64_t)40 << 20;
#endif
    assert_true(after >= before + (30u << 20) && after <= before + most);
    assert_true(pf_memory_peak_rss() >= after);
    free(p);
}

static void count(void *ctx, pf_log_level level, const char *text) {
    (void)text;
    *(int *)ctx += level == PF_LOG_WARN;
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "--level") == 0) {
        int warnings = 0;
        pf_log_set_sink(count, &warnings);
        int level = (int)pf_cpu_level();
        printf("%d\n", level + 100 * warnings);
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forcing_only_lowers),
        cmocka_unit_test(the_environment_lowers_too),
        cmocka_unit_test(memory_figures_are_plausible),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
