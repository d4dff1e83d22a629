/* dataset.h - a data file as tokens: every example in one array, with what is needed to train on
 * it, to evaluate by generating, and to say what was done with the rows.
 *
 * Nothing is cut or dropped silently. A row longer than the limit is an error by default; `drop`
 * and `truncate` are counted. A row without any token to learn (only the cut can do that) is left
 * out and counted. Where not a single row is left, loading fails.
 *
 * Reading and rendering go row by row, tokenizing is spread over a pool; the result is the same on
 * any number of threads. */
#ifndef PF_DATASET_H
#define PF_DATASET_H

#include "base/pool.h"
#include "data/batch_builder.h"
#include "data/class_row.h"
#include "data/example.h"
#include "data/reader.h"
#include "data/token_row.h"

typedef enum pf_overlength {
    PF_OVERLENGTH_ERROR,
    PF_OVERLENGTH_DROP,
    PF_OVERLENGTH_TRUNCATE
} pf_overlength;

typedef struct pf_dataset_options {
    pf_reader_options reader;
    const char *prompt, *target; /* templates */
    const char *text;            /* template of plain text, in place of both; what is classified */
    pf_token_columns tokens;     /* rows that are tokens already, in place of all three */
    pf_class_rules classes;      /* where columns.label is given: the target is a class */
    pf_encode_options encode;
    int64_t max_length;             /* training.max_length; 0: none */
    int64_t max_positions;          /* the model's; 0: none */
    int64_t max_source, max_target; /* of prompt and target with an encoder; 0: none */
    pf_overlength overlength;
    int64_t max_rows; /* read only so many; 0: all */
    pf_pool *pool;    /* NULL: in place */
} pf_dataset_options;

enum {                       /* flags of an example */
       PF_EXAMPLE_SPLIT = 1, /* a token would have straddled the boundary: tokenized in two parts */
       PF_EXAMPLE_TRUNCATED = 2,    /* its end was cut off */
       PF_EXAMPLE_EMPTY_TARGET = 4, /* nothing to learn but the end of the sequence */
       PF_EXAMPLE_GAPS = 8, /* between its first and its last learned token are some that are not */
       PF_EXAMPLE_CLASSES = 16 /* tokens have classes */
};

typedef struct pf_example {
    int64_t first;       /* of its tokens in pf_dataset.tokens */
    int32_t n_tokens;    /* BOS and EOS included */
    int32_t n_prompt;    /* leading tokens that are not learned: what generation starts from */
    int32_t n_source;    /* of them those of the encoder; 0: the model has none */
    int32_t end_label;   /* tokens from here on are not learned either; 0: all are */
    int32_t n_learned;   /* with PF_EXAMPLE_GAPS: how many are, pf_dataset.weights says which; of
                            classes: how many tokens have one */
    int32_t second_from; /* of two texts: the first token of the second; 0: one text */
    int64_t row, line;
    size_t text, n_text,
        n_prompt_text; /* in pf_dataset.text: prompt and target, one after the other */
    unsigned flags;
} pf_example;

typedef struct pf_data_counts {
    int64_t rows;                               /* in the file, max_rows respected */
    int64_t dropped, truncated;                 /* for their length */
    int64_t without_labels;                     /* left out: nothing to learn */
    int64_t split, empty_targets;               /* of those kept */
    int64_t tokens, supervised;                 /* of those kept */
    int64_t limit;                              /* longest row allowed; 0: none */
    int64_t over_limit;                         /* rows beyond it */
    int64_t longest, longest_row, longest_line; /* before anything was cut or dropped */
    int32_t max_tokens;                         /* longest of those kept */
} pf_data_counts;

typedef struct pf_dataset {
    const char *path;
    const char *format; /* name of the reader */
    int32_t *tokens;
    int64_t n_tokens;
    float *weights;   /* (n_tokens) 1 where a token is learned; NULL: no example has gaps */
    int32_t *classes; /* (n_tokens) class of each token, -1: none; NULL: targets are tokens. The
                         texts are then what is classified, and the names of its classes */
    const float *class_weights; /* by id, borrowed (class_weights.h); NULL: each counts 1 */
    float *values;              /* (n, n_values) targets that are numbers (graph/problem.h), one row
                                   for each example; NULL: classes are ids */
    int n_values;
    pf_problem problem;
    const pf_strlist *labels; /* names of the classes, borrowed */
    pf_example *examples;     /* in the order of the file */
    int64_t n;
    char *text;
    size_t n_text;
    bool plain_text;  /* made with a text template */
    bool from_tokens; /* the file has tokens: there is no text */
    pf_data_counts counts;
    char file_sha256[PF_SHA256_HEX];
    char fingerprint[PF_SHA256_HEX]; /* of the file, templates, tokenizer and options: all that
                                        decides the tokens */
    pf_arena arena;
} pf_dataset;

peft_status pf_dataset_load(pf_dataset *ds, const char *path, const pf_dataset_options *opt,
                            peft_error *err);
void pf_dataset_release(pf_dataset *ds);

/* Example i as the batch builder takes it; index: of the sample in the step. */
pf_sample pf_dataset_sample(const pf_dataset *ds, int64_t i, int32_t index);
/* Tokens with a label: what the example adds to a step's denominator. */
int32_t pf_example_supervised(const pf_example *e);
/* Texts; of a set made from tokens, empty. */
pf_str pf_dataset_prompt(const pf_dataset *ds, int64_t i);
pf_str pf_dataset_target(const pf_dataset *ds, int64_t i);
/* What a person would read: prompt and target, or where there is no text the tokens decoded. */
peft_status pf_dataset_text(const pf_dataset *ds, int64_t i, const pf_tokenizer *t, pf_buf *out,
                            peft_error *err);
/* Is token k of the example learned? */
bool pf_dataset_learns(const pf_dataset *ds, int64_t i, int32_t k);

/* Some examples of a data set, in an order: the training rows, the test rows. */
typedef struct pf_data_view {
    const pf_dataset *set;
    const int64_t *index; /* (n) */
    int64_t n;
} pf_data_view;

#endif
