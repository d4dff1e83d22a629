/* clock.h - monotonic time for durations, wall time for records. */
#ifndef PF_CLOCK_H
#define PF_CLOCK_H

#include <stddef.h>
#include <stdint.h>

double pf_now(void);         /* seconds, monotonic */
double pf_process_age(void); /* seconds since this process began, to 10 ms; 0 where unknown */
double pf_wall(void);        /* seconds since 1970 */
char *pf_wall_iso(char *out, size_t n);                 /* 2026-01-31T12:00:00Z; returns out */
char *pf_format_seconds(double s, char *out, size_t n); /* 02:15 or 1:02:15, as tqdm */

#endif
