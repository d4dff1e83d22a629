/* model_test.h - for tests of models: folders with a config.json of some keys and zero weights, and
 * what was logged. */
#ifndef MODEL_TEST_H
#define MODEL_TEST_H

#include "formats/safetensors_write.h"
#include "formats/file_util.h"
#include "models/model_open.h"
#include "text/json.h"

#include "base/log.h"

/* A tiny LLaMA; keys that a test changes come later in the text and so win (duplicates are refused,
 * hence the splicing). */
static inline const char *tiny_config(pf_arena *a, const char *architecture, const char *extra) {
    return pf_arena_printf(
        a,
        "{\"architectures\": [\"%s\"], \"hidden_size\": 8, \"num_hidden_layers\": "
        "2, \"num_attention_heads\": 4, \"intermediate_size\": 12, "
        "\"vocab_size\": 10%s%s}",
        architecture, extra[0] == 0 ? "" : ", ", extra);
}

typedef struct tensor_list {
    pf_stored_tensor t[64];
    int n;
} tensor_list;

static inline void add_tensor(tensor_list *l, pf_arena *a, const char *name, int64_t rows,
                              int64_t cols, float value) {
    const int64_t matrix[] = {rows, cols}, vector[] = {cols};
    int64_t n = (rows == 0 ? 1 : rows) * cols;
    float *data = PF_NEW_ARRAY(a, float, n);
    for (int64_t i = 0; i < n; i++) data[i] = value;
    assert_true(l->n < 64);
    assert_int_equal(pf_stored_tensor_set(&l->t[l->n++], name, PF_DTYPE_F32, rows == 0 ? 1 : 2,
                                          rows == 0 ? vector : matrix, data, NULL),
                     PEFT_OK);
}

/* Every tensor of tiny_config's model with four KV heads, but for embedding and head. */
static inline void add_layers(tensor_list *l, pf_arena *a) {
    static const struct {
        const char *part;
        int64_t rows, cols;
    } parts[] = {
        {"input_layernorm", 0, 8},  {"post_attention_layernorm", 0, 8},
        {"self_attn.q_proj", 8, 8}, {"self_attn.k_proj", 8, 8},
        {"self_attn.v_proj", 8, 8}, {"self_attn.o_proj", 8, 8},
        {"mlp.gate_proj", 12, 8},   {"mlp.up_proj", 12, 8},
        {"mlp.down_proj", 8, 12},
    };
    for (int i = 0; i < 2; i++) {
        for (size_t k = 0; k < PF_COUNT(parts); k++) {
            const char *name = pf_arena_printf(a, "model.layers.%d.%s.weight", i, parts[k].part);
            add_tensor(l, a, name, parts[k].rows, parts[k].cols, 0.5f);
        }
    }
    add_tensor(l, a, "model.norm.weight", 0, 8, 1);
}

static inline const char *make_folder(pf_arena *a, const char *name, const char *config,
                                      const tensor_list *l, const pf_metadata *meta, int n_meta) {
    const char *dir = fresh_dir(a, name);
    put_text(a, dir, "config.json", config);
    if (l != NULL) {
        peft_error err = {0};
        if (pf_safetensors_write(pf_path_join(a, dir, "model.safetensors"), l->t, l->n, meta,
                                 n_meta, NULL, NULL, &err) != PEFT_OK) {
            fail_msg("%s", err.message);
        }
    }
    return dir;
}

/* What went to the log while a test looked. */
static char logged[8192];

static inline void keep_log(void *ctx, pf_log_level level, const char *text) {
    (void)ctx, (void)level;
    size_t n = strlen(logged);
    snprintf(logged + n, sizeof logged - n, "%s\n", text);
}

static inline void log_begin(void) {
    logged[0] = 0;
    pf_log_set_sink(keep_log, NULL);
}

static inline void log_end(void) {
    pf_log_set_sink(NULL, NULL);
}

#endif
