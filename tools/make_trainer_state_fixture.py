#!/usr/bin/env python3
"""Makes tests/golden/trainer_state/trainer_state.json with transformers' own TrainerState. Needs transformers. Run from
the root. tests/train/test_trainer_state.c builds the same state and compares bytes."""
import transformers
from transformers.trainer_callback import EarlyStoppingCallback, TrainerControl, TrainerState


def main():
    stop = EarlyStoppingCallback(early_stopping_patience=3, early_stopping_threshold=0.5)
    stop.early_stopping_patience_counter = 2
    state = TrainerState(
        epoch=1.5, global_step=30, max_steps=60, logging_steps=10, eval_steps=20, save_steps=30, train_batch_size=4,
        num_train_epochs=3, num_input_tokens_seen=12345, total_flos=1.25e15,
        best_metric=41.25, best_global_step=20, best_model_checkpoint="outputs/Größe/checkpoint-20",
        stateful_callbacks=[stop, TrainerControl(should_save=True)])
    state.log_history = [
        {"loss": 2.3456789012345678, "grad_norm": 1e-05, "learning_rate": 0.0002, "epoch": 0.5, "step": 10},
        {"loss": 1.0, "grad_norm": 123456789.0, "learning_rate": 1.9999999999999998e-04, "epoch": 1.0, "step": 20},
        {"eval_loss": 1.5, "eval_exact_match": 41.25, "eval_runtime": 0.0123, "eval_samples": 40, "epoch": 1.0, "step": 20},
        {"loss": 1e+16, "grad_norm": 3.0000000000000004, "learning_rate": 0.0, "epoch": 1.5, "step": 30},
    ]
    state.save_to_json("tests/golden/trainer_state/trainer_state.json")
    print(transformers.__version__)


if __name__ == "__main__":
    main()
