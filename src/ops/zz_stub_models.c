#include "ops/attention/attention.h"
#include "ops/matmul/linear.h"
#include "ops/loss/head_ce.h"
#include "ops/matmul/lowrank.h"
#include "ops/embed/embed.h"
#include <stdlib.h>
#define S __attribute__((weak))
S peft_status pf_attention(pf_graph *g, const char *name, pf_value *q, pf_value *k, pf_value *v, pf_value *ek, pf_value *ev, const pf_attention_args *a, pf_value **o, peft_error *e){(void)g;(void)name;(void)q;(void)k;(void)v;(void)ek;(void)ev;(void)a;(void)o;(void)e;abort();}
S peft_status pf_linear(pf_graph *g, const char *name, pf_value *x, pf_value *w, pf_value *b, pf_value **y, peft_error *e){(void)g;(void)name;(void)x;(void)w;(void)b;(void)y;(void)e;abort();}
S peft_status pf_add_bias(pf_graph *g, const char *name, pf_value *x, pf_value *b, pf_value **y, peft_error *e){(void)g;(void)name;(void)x;(void)b;(void)y;(void)e;abort();}
S peft_status pf_gather_labels(pf_graph *g, const char *name, pf_value *x, pf_value **y, peft_error *e){(void)g;(void)name;(void)x;(void)y;(void)e;abort();}
S peft_status pf_head_ce(pf_graph *g, const char *n, pf_value *h, pf_value *w, pf_value *b, pf_value *a, pf_value *bb, const pf_head_ce_args *ar, pf_value **x, pf_value **c, peft_error *e){(void)g;(void)n;(void)h;(void)w;(void)b;(void)a;(void)bb;(void)ar;(void)x;(void)c;(void)e;abort();}
S peft_status pf_lowrank(pf_graph *g, const char *n, pf_value *b, pf_value *x, pf_value *a, pf_value *bb, const pf_lowrank_args *ar, pf_value **y, peft_error *e){(void)g;(void)n;(void)b;(void)x;(void)a;(void)bb;(void)ar;(void)y;(void)e;abort();}
S peft_status pf_embed_lowrank(pf_graph *g, const char *n, pf_value *b, pf_value *a, pf_value *bb, double s, pf_value **y, peft_error *e){(void)g;(void)n;(void)b;(void)a;(void)bb;(void)s;(void)y;(void)e;abort();}
