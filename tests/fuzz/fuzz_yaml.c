/* fuzz_yaml.c - any bytes as a YAML file; every node of the tree is visited. */
#include "text/yaml.h"

#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int count(const pf_yaml_node *n, int depth) {
    if (depth > PF_YAML_MAX_DEPTH || n->line < 1 || n->column < 1) abort();
    int total = 1 + (n->key != NULL ? 1 : 0), children = 0;
    for (const pf_yaml_node *c = n->first; c != NULL; c = c->next, children++) {
        if ((n->kind == PF_YAML_MAP) != (c->key != NULL)) abort();
        total += count(c, depth + 1);
    }
    if (children != n->n) abort();
    return total;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    pf_arena a;
    pf_arena_init(&a, "fuzz");
    pf_yaml_node *root = NULL;
    if (pf_yaml_parse(&root, &a, (const char *)data, size, "fuzz", NULL) == PEFT_OK &&
        root != NULL && count(root, 0) > PF_YAML_MAX_NODES)
        abort();
    pf_arena_release(&a);
    return 0;
}
