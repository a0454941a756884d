//! An open_clip directory with weights from a generator, in the widths of ViT-B/32.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// What may be smaller than in ViT-B/32.
pub(crate) struct Shape {
    /// Edge of a picture, in patches of 32 × 32.
    pub(crate) grid: usize,
    /// Layers of each tower.
    pub(crate) layers: usize,
}

impl Shape {
    /// Writes the model to `dir`, unless it is there.
    pub(crate) fn write(&self, dir: &Path) -> PathBuf {
        let Self { grid, layers } = *self;
        let weights = dir.join("open_clip_model.safetensors");
        if weights.is_file() {
            return dir.to_path_buf();
        }
        fs::create_dir_all(dir).expect("a directory that can be written");
        let config = format!(
            r#"{{"model_cfg": {{"embed_dim": 512, "quick_gelu": true,
            "vision_cfg": {{"image_size": {}, "layers": {layers}, "width": 768, "patch_size": 32}},
            "text_cfg": {{"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": {layers}}}}}}}"#,
            32 * grid
        );
        fs::write(dir.join("open_clip_config.json"), config).expect("a directory that can be written");

        // The header of a safetensors file is JSON with places; its numbers follow without gaps.
        let tensors = self.tensors();
        let mut header = serde_json::Map::new();
        let mut at = 0_usize;
        for (name, shape) in &tensors {
            let end = at + 4 * shape.iter().product::<usize>();
            header.insert(name.clone(), serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [at, end]}));
            at = end;
        }
        let header = serde_json::Value::Object(header).to_string();
        let part = weights.with_extension("part");
        let mut file = std::io::BufWriter::new(fs::File::create(&part).expect("a directory that can be written"));
        let mut write = |bytes: &[u8]| file.write_all(bytes).expect("space for the weights");
        write(&(header.len() as u64).to_le_bytes());
        write(header.as_bytes());
        let mut normal = Normal(0x9e37_79b9_7f4a_7c15);
        for (name, shape) in &tensors {
            let count: usize = shape.iter().product();
            let scale = if shape.len() < 2 { 0.1 } else { 0.8 / (count as f32 / shape[0] as f32).sqrt() };
            let offset = if name.contains("ln_") && name.ends_with("weight") { 1.0 } else { 0.0 };
            for _ in 0..count {
                write(&(offset + scale * normal.next()).to_le_bytes());
            }
        }
        file.flush().expect("space for the weights");
        drop(file);
        fs::rename(part, weights).expect("a directory that can be written");
        dir.to_path_buf()
    }

    /// Names and shapes of all tensors.
    fn tensors(&self) -> BTreeMap<String, Vec<usize>> {
        let mut tensors: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        let mut add = |name: String, shape: &[usize]| drop(tensors.insert(name, shape.to_vec()));
        for (tower, width, norms) in [("visual.", 768, ["ln_pre", "ln_post"].as_slice()), ("", 512, &["ln_final"])] {
            for part in norms.iter().map(|norm| format!("{tower}{norm}")) {
                add(format!("{part}.weight"), &[width]);
                add(format!("{part}.bias"), &[width]);
            }
            for block in (0..self.layers).map(|i| format!("{tower}transformer.resblocks.{i}")) {
                for (part, shape) in [
                    ("ln_1.", vec![width]),
                    ("ln_2.", vec![width]),
                    ("attn.in_proj_", vec![3 * width, width]),
                    ("attn.out_proj.", vec![width, width]),
                    ("mlp.c_fc.", vec![4 * width, width]),
                    ("mlp.c_proj.", vec![width, 4 * width]),
                ] {
                    add(format!("{block}.{part}weight"), &shape);
                    add(format!("{block}.{part}bias"), &shape[..1]);
                }
            }
        }
        add("visual.conv1.weight".into(), &[768, 3, 32, 32]);
        add("visual.class_embedding".into(), &[768]);
        add("visual.positional_embedding".into(), &[self.grid * self.grid + 1, 768]);
        add("visual.proj".into(), &[768, 512]);
        add("token_embedding.weight".into(), &[49_408, 512]);
        add("positional_embedding".into(), &[77, 512]);
        add("text_projection".into(), &[512, 512]);
        add("logit_scale".into(), &[]);
        tensors
    }
}

/// Numbers that are nearly normally distributed, of variance one: sums of four even ones. Even ones alone would flatter int8,
/// whose steps are as fine as the largest number allows.
struct Normal(u64);

impl Normal {
    fn next(&mut self) -> f32 {
        // Xorshift (Marsaglia 2003).
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let sum: u64 = (0..4).map(|i| (self.0 >> (16 * i)) & 0xffff).sum();
        (sum as f32 / 65_535.0 - 2.0) * 3.0_f32.sqrt()
    }
}
