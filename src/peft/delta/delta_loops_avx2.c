/* delta_loops_avx2.c - see delta_loops.h. */
#include "peft/delta/fft_loops.h"
#include "peft/delta/rotate_loops.h"

const pf_delta_loops pf_delta_loops_avx2 = {.fft = run_fft,
                                            .load = load_rows,
                                            .scatter = scatter,
                                            .match = match,
                                            .product = product,
                                            .rotate = rotate,
                                            .outer = outer};
