//! Keys of Hugging Face's configurations that cannot change a vector.
//!
//! Its files hold much that no tower reads: how weights were drawn at first, what training drops, how sentences would be
//! written, labels of a classifier. They are listed here, after what transformers has written over the years, so that every
//! other key can be refused by name.

use super::hugging_face::Kind;

/// Of every configuration and every tower.
pub(super) const ANY: &[&str] = &[
    // Where it comes from, and in which numbers it was stored.
    "_name_or_path",
    "_commit_hash",
    "architectures",
    "transformers_version",
    "model_type",
    "tokenizer_class",
    "torch_dtype",
    "dtype",
    "use_bfloat16",
    "torchscript",
    "attn_implementation",
    "_attn_implementation",
    "_attn_implementation_autoset",
    // Beginnings of a training, and the scale of its loss.
    "initializer_factor",
    "initializer_range",
    "logit_scale_init_value",
    "attention_dropout",
    "attention_probs_dropout_prob",
    "hidden_dropout_prob",
    "classifier_dropout",
    "dropout",
    "gradient_checkpointing",
    // What is given back, and in how many steps it is computed.
    "return_dict",
    "output_attentions",
    "output_hidden_states",
    "use_cache",
    // What it was called before.
    "output_past",
    "chunk_size_feed_forward",
    "tf_legacy_loss",
    // Classifiers.
    "id2label",
    "label2id",
    "num_labels",
    "problem_type",
    "finetuning_task",
    "task_specific_params",
    // Writing.
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "sep_token_id",
    "decoder_start_token_id",
    "cross_attention_hidden_size",
    "tie_encoder_decoder",
    "tie_word_embeddings",
    "prefix",
    "max_length",
    "min_length",
    "do_sample",
    "early_stopping",
    "num_beams",
    "num_beam_groups",
    "diversity_penalty",
    "temperature",
    "top_k",
    "top_p",
    "typical_p",
    "repetition_penalty",
    "length_penalty",
    "no_repeat_ngram_size",
    "encoder_no_repeat_ngram_size",
    "bad_words_ids",
    "num_return_sequences",
    "output_scores",
    "return_dict_in_generate",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "remove_invalid_values",
    "exponential_decay_length_penalty",
    "suppress_tokens",
    "begin_suppress_tokens",
];

/// What would change a tower of any kind but is not used by any.
pub(super) const UNUSED: &[&str] = &["is_decoder", "is_encoder_decoder", "add_cross_attention", "pruned_heads"];

/// Of the root.
pub(super) fn root(kind: Kind) -> &'static [&'static str] {
    match kind {
        // What draws the segments.
        Kind::ClipSeg => &[
            "extract_layers",
            "reduce_dim",
            "decoder_num_attention_heads",
            "decoder_attention_dropout",
            "decoder_hidden_act",
            "decoder_intermediate_size",
            "conditional_layer",
            "use_complex_transposed_convolution",
        ],
        Kind::AltClip => &["direct_kd", "num_layers", "text_model_name", "vision_model_name"],
        Kind::Blip => &["projection_dim", "label_smoothing"],
        Kind::Aimv2 => &["init_temperature", "max_logit_scale"],
        Kind::Align => &["temperature_init_value"],
        Kind::Clip | Kind::MetaClip | Kind::Siglip | Kind::Naflex | Kind::ChineseClip => &[],
    }
}

/// Of the image tower.
pub(super) fn vision(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Naflex => &["image_size", "projection_dim"],
        Kind::Aimv2 => &["projection_dim", "projection_dropout"],
        // The last ones follow from the lists of stages, or belong to a classifier.
        Kind::Align => &[
            "projection_dim",
            "image_size",
            "batch_norm_momentum",
            "dropout_rate",
            "drop_connect_rate",
            "hidden_dim",
            "num_hidden_layers",
        ],
        _ => &["projection_dim"],
    }
}

/// Of the text tower.
pub(super) fn text(kind: Kind) -> &'static [&'static str] {
    match kind {
        // The width of the last map is that of the image tower.
        Kind::Siglip | Kind::Naflex => &["projection_dim", "projection_size"],
        Kind::Aimv2 => &["projection_dim", "projection_dropout"],
        Kind::AltClip => &["projection_dim", "pooler_fn", "learn_encoder"],
        // The class that retrieves runs it as an encoder, without kinds of segments.
        Kind::Blip => &[
            "projection_dim",
            "is_decoder",
            "is_encoder_decoder",
            "add_cross_attention",
            "encoder_hidden_size",
            "label_smoothing",
            "type_vocab_size",
        ],
        // BERT's own map of the first token, which is not used.
        Kind::ChineseClip | Kind::Align => &[
            "projection_dim",
            "directionality",
            "pooler_fc_size",
            "pooler_num_attention_heads",
            "pooler_num_fc_layers",
            "pooler_size_per_head",
            "pooler_type",
        ],
        _ => &["projection_dim"],
    }
}
