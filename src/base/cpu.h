/* cpu.h - what this processor can do, and how far we let it.
 *
 * The level in force is the lowest of what the CPU has, what the environment variable PEFT_ISA says
 * (scalar, avx2, avx512) and what pf_cpu_force asked for. Kernels ask pf_cpu_level when a graph is
 * planned, never later. */
#ifndef PF_CPU_H
#define PF_CPU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum pf_isa {
    PF_ISA_SCALAR,
    PF_ISA_AVX2,  /* AVX2, FMA, F16C */
    PF_ISA_AVX512 /* F, BW, DQ, VL, CD */
} pf_isa;

pf_isa pf_cpu_level(void);
void pf_cpu_force(pf_isa at_most);
const char *pf_isa_name(pf_isa isa);
bool pf_cpu_has_avx512_bf16(void); /* false whenever the level in force is below AVX512 */
bool pf_cpu_has_avx512_vnni(void);
bool pf_cpu_has_avx_vnni(void); /* the same in 256 bits; false below AVX2 */
const char *pf_cpu_model(void); /* "AMD EPYC ...", for records */
size_t pf_cpu_l2_bytes(void);   /* per core; 1 MiB when unknown */
uint64_t pf_memory_total(void); /* of the machine, or of the container (cgroup) that we are in */
uint64_t pf_memory_available(void);
/* Anonymous memory of this process now and at its peak (RssAnon / sampled), and peak RSS, in bytes;
 * 0 if unknown. */
uint64_t pf_memory_anon(void);
uint64_t pf_memory_peak_rss(void);

#endif
