/* schema.h - what a configuration key is: one row.
 *
 * A row ties a name in YAML to a field of a plain struct, with its default, its bounds and one line
 * of help. The reader, the overrides, the messages, the resolved dump, --explain and docs/config.md
 * are all made from rows; nothing else lists keys. Rows stand next to the struct they describe:
 *
 *   typedef struct lora_cfg { int r; double alpha; pf_cfg_strings target_modules; } lora_cfg;
 *   static const pf_cfg_row lora_rows[] = {
 *       PF_CFG_INT(lora_cfg, r, 8, 1, 1024, "rank of the update"),
 *       PF_CFG_FLOAT(lora_cfg, alpha, 16, 0, 1e4, "the update is scaled by alpha / r", .aliases =
 * "lora_alpha"), PF_CFG_STRLIST(lora_cfg, target_modules, "q_proj,v_proj", "names of modules, or
 * one regular expression"), PF_CFG_END};
 *
 * Behind the help any further field may be set (.aliases, .note, .flags, .unit). The reading side
 * is cfg.h. */
#ifndef PF_SCHEMA_H
#define PF_SCHEMA_H

#include "base/str.h"

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum pf_cfg_type {
    PF_CFG_T_END,
    PF_CFG_T_INT,     /* int or int64_t */
    PF_CFG_T_FLOAT,   /* float or double */
    PF_CFG_T_BOOL,    /* bool */
    PF_CFG_T_STR,     /* const char *, NULL when not given and without default */
    PF_CFG_T_ENUM,    /* const char *, one of `choices` in its first spelling */
    PF_CFG_T_SIZE,    /* uint64_t, bytes */
    PF_CFG_T_STRLIST, /* pf_cfg_strings */
    PF_CFG_T_INTLIST, /* pf_cfg_ints */
    PF_CFG_T_MAP,     /* pf_cfg_map, any values */
    PF_CFG_T_NUMMAP,  /* pf_cfg_map, values are numbers within the bounds */
    PF_CFG_T_SECTION, /* a struct with rows of its own */
    PF_CFG_T_KINDS /* the same, written as a list of one-key mappings: callbacks: [- early_stopping:
                      {...}] */
} pf_cfg_type;

enum {
    PF_CFG_ABOVE_MIN = 1, /* the lower bound itself is not allowed */
    PF_CFG_BELOW_MAX = 2, /* the upper bound itself is not allowed */
    PF_CFG_UNSET = 4,     /* the default stands for "not given"; messages do not recommend it */
    PF_CFG_WHOLE = 8,     /* numbers of a NUMMAP are whole */
    PF_CFG_MEMORY = 16,   /* a SIZE may be a share of this machine's memory: 60% */
};

typedef struct pf_cfg_strings {
    pf_strlist list;
    bool single; /* written as one text, not as a list (it may be a regular expression) */
} pf_cfg_strings;

typedef struct pf_cfg_ints {
    int64_t *items;
    int n;
} pf_cfg_ints;

typedef struct pf_cfg_pair {
    const char *key, *text;
    double number; /* when is_number */
    bool is_number;
} pf_cfg_pair;

typedef struct pf_cfg_map {
    pf_cfg_pair *items; /* in the order of the file */
    int n;
} pf_cfg_map;

typedef struct pf_cfg_row pf_cfg_row;
struct pf_cfg_row {
    const char *name;
    pf_cfg_type type;
    unsigned flags;
    size_t offset, size; /* of the field in its struct */
    double number;       /* default of INT, FLOAT, BOOL */
    double min, max;     /* INT, FLOAT, SIZE, numbers in lists and maps; infinite: no bound */
    const char *text;    /* default of STR, ENUM, SIZE, STRLIST ("a,b"); NULL: none */
    const char
        *choices; /* ENUM: "auto float32=fp32=f32 ..."; NULL: the names of the sections beside it */
    const pf_cfg_row *rows; /* SECTION, KINDS */
    size_t given; /* SECTION: 1 + offset (from the outer struct) of a bool that says it is there; or
                     0 */
    const char *parts; /* SECTION: a list of such sections is taken too (cfg_parts.c): the key that
                          names a part, and the key for the names behind the first; NULL: no */
    const char *help;  /* one line, no full stop */
    const char *aliases; /* other spellings, separated by blanks */
    const char *note;    /* said once, in one line, when the key is given */
};

#define PF_CFG_FIELD(S, f) .offset = offsetof(S, f), .size = sizeof(((S *)0)->f)

/* The _AS forms name the key apart from the field (a member of a nested struct). */
#define PF_CFG_INT_AS(S, f, key, def, lo, hi, ...)                                                 \
    {                                                                                              \
        .name = key, .type = PF_CFG_T_INT, PF_CFG_FIELD(S, f), .number = (double)(def),            \
        .min = (double)(lo), .max = (double)(hi), .help = __VA_ARGS__                              \
    }
#define PF_CFG_FLOAT_AS(S, f, key, def, lo, hi, ...)                                               \
    {                                                                                              \
        .name = key, .type = PF_CFG_T_FLOAT, PF_CFG_FIELD(S, f), .number = (double)(def),          \
        .min = (double)(lo), .max = (double)(hi), .help = __VA_ARGS__                              \
    }
#define PF_CFG_BOOL_AS(S, f, key, def, ...)                                                        \
    {                                                                                              \
        .name = key, .type = PF_CFG_T_BOOL, PF_CFG_FIELD(S, f), .number = (def) ? 1.0 : 0.0,       \
        .help = __VA_ARGS__                                                                        \
    }
#define PF_CFG_STR_AS(S, f, key, def, ...)                                                         \
    { .name = key, .type = PF_CFG_T_STR, PF_CFG_FIELD(S, f), .text = def, .help = __VA_ARGS__ }
#define PF_CFG_ENUM_AS(S, f, key, def, choice, ...)                                                \
    {                                                                                              \
        .name = key, .type = PF_CFG_T_ENUM, PF_CFG_FIELD(S, f), .text = def, .choices = choice,    \
        .help = __VA_ARGS__                                                                        \
    }
#define PF_CFG_STRLIST_AS(S, f, key, def, ...)                                                     \
    { .name = key, .type = PF_CFG_T_STRLIST, PF_CFG_FIELD(S, f), .text = def, .help = __VA_ARGS__ }

#define PF_CFG_INT(S, f, ...)     PF_CFG_INT_AS(S, f, #f, __VA_ARGS__)
#define PF_CFG_FLOAT(S, f, ...)   PF_CFG_FLOAT_AS(S, f, #f, __VA_ARGS__)
#define PF_CFG_BOOL(S, f, ...)    PF_CFG_BOOL_AS(S, f, #f, __VA_ARGS__)
#define PF_CFG_STR(S, f, ...)     PF_CFG_STR_AS(S, f, #f, __VA_ARGS__)
#define PF_CFG_ENUM(S, f, ...)    PF_CFG_ENUM_AS(S, f, #f, __VA_ARGS__)
#define PF_CFG_STRLIST(S, f, ...) PF_CFG_STRLIST_AS(S, f, #f, __VA_ARGS__)
#define PF_CFG_SIZE(S, f, def, ...)                                                                \
    {                                                                                              \
        .name = #f, .type = PF_CFG_T_SIZE, PF_CFG_FIELD(S, f), .text = def, .min = 0,              \
        .max = INFINITY, .help = __VA_ARGS__                                                       \
    }
#define PF_CFG_INTLIST_AS(S, f, key, lo, hi, ...)                                                  \
    {                                                                                              \
        .name = key, .type = PF_CFG_T_INTLIST, PF_CFG_FIELD(S, f), .min = (double)(lo),            \
        .max = (double)(hi), .help = __VA_ARGS__                                                   \
    }
#define PF_CFG_INTLIST(S, f, ...) PF_CFG_INTLIST_AS(S, f, #f, __VA_ARGS__)
#define PF_CFG_MAP(S, f, ...)                                                                      \
    { .name = #f, .type = PF_CFG_T_MAP, PF_CFG_FIELD(S, f), .help = __VA_ARGS__ }
#define PF_CFG_NUMMAP_AS(S, f, key, lo, hi, ...)                                                   \
    {                                                                                              \
        .name = key, .type = PF_CFG_T_NUMMAP, PF_CFG_FIELD(S, f), .min = (double)(lo),             \
        .max = (double)(hi), .help = __VA_ARGS__                                                   \
    }
#define PF_CFG_NUMMAP(S, f, ...) PF_CFG_NUMMAP_AS(S, f, #f, __VA_ARGS__)
#define PF_CFG_SECTION(S, f, section_rows, ...)                                                    \
    {                                                                                              \
        .name = #f, .type = PF_CFG_T_SECTION, PF_CFG_FIELD(S, f), .rows = section_rows,            \
        .help = __VA_ARGS__                                                                        \
    }
/* A section that acts by being there: its struct has a member `bool given`. */
#define PF_CFG_OPTIONAL(S, f, section_rows, ...)                                                   \
    {                                                                                              \
        .name = #f, .type = PF_CFG_T_SECTION, PF_CFG_FIELD(S, f), .rows = section_rows,            \
        .given = offsetof(S, f.given) + 1, .help = __VA_ARGS__                                     \
    }
#define PF_CFG_KINDS(S, f, section_rows, ...)                                                      \
    {                                                                                              \
        .name = #f, .type = PF_CFG_T_KINDS, PF_CFG_FIELD(S, f), .rows = section_rows,              \
        .help = __VA_ARGS__                                                                        \
    }
#define PF_CFG_END                                                                                 \
    { .type = PF_CFG_T_END }

struct pf_cfg;

/* A section that another folder brings: it appears as `section`.`name`, and its struct (`size`
 * bytes) is made when the configuration is opened; pf_cfg_section finds it. */
typedef struct pf_cfg_ext {
    const char *section, *name, *help;
    const pf_cfg_row *rows; /* ends in PF_CFG_END */
    size_t size;
    /* Rules between its keys: complains (pf_cfg_complain); NULL: none */
    void (*check)(struct pf_cfg *c, const void *section);
} pf_cfg_ext;

bool pf_cfg_is_section(const pf_cfg_row *row);
/* `name` is the row's name or one of its aliases. */
bool pf_cfg_row_is(const pf_cfg_row *row, const char *name);
/* The canonical spelling of an ENUM value (letter case is ignored), or NULL. `choices` as in the
 * row. */
const char *pf_cfg_choice(const char *choices, const char *value, pf_arena *a);
/* The canonical spellings, "auto, float32, bfloat16". */
peft_status pf_cfg_choice_names(const char *choices, pf_strlist *out, pf_arena *a, peft_error *err);
/* What a value should be: "a whole number between 1 and 1024 (8 is usual)"; without_type leaves the
 * first words out. */
void pf_cfg_expected(const pf_cfg_row *row, const char *choices, bool without_type, char *out,
                     size_t n);

#endif
