//! Image towers that open_clip takes from timm, by their names there.
//!
//! timm keeps sizes in code, under a name; the checkpoint's own shapes say the same. So widths and depths are read from the
//! shapes, and the name is asked only for what no shape tells: heads, activations, epsilons, and where norms and places stand.

use super::json::{Object, bad};
use crate::Result;
use crate::model::config::{
    Activation, AttentionPool, BlocksConfig, Grid, ImageConfig, NormOrder, Pool, Positions, Projection, Stem,
    TransformerConfig, Trunk, VitConfig,
};
use crate::model::trunk::TrunkKind;
use crate::model::trunk::convnext::ConvNextConfig;
use crate::model::trunk::fastvit::FastVitConfig;
use crate::model::trunk::stem::StemConfig;
use crate::model::weights::{Checkpoint, Origin};

/// Where towers of timm stand in a checkpoint.
const TRUNK: &str = "visual.trunk";

/// Where a last map without a bias stands that is applied from the right, below the trunk.
const MATRIX: &str = "head.proj";

/// The same beside the trunk.
const PROJECTED: &str = "visual.head.proj";

/// What a name of timm stands for among vision transformers.
struct Row {
    heads: usize,
    activation: Activation,
    norm_eps: f64,
    /// Tokens have places of their own before the grid's.
    positions: Positions,
    order: NormOrder,
    gated: bool,
    rotation: Option<Grid>,
    pool: &'static str,
    pool_heads: usize,
}

impl Row {
    /// timm's defaults.
    fn new(heads: usize) -> Self {
        Self {
            heads,
            activation: Activation::Gelu,
            norm_eps: 1e-6,
            positions: Positions::All,
            order: NormOrder::Before,
            gated: false,
            rotation: None,
            pool: "token",
            pool_heads: heads,
        }
    }
}

/// Reads `vision_cfg` where it names a model of timm.
pub(super) fn read_vision(cfg: &Object, checkpoint: &Checkpoint, dim: usize) -> Result<ImageConfig> {
    let full = cfg.text("timm_model_name")?.unwrap_or_default();
    // What follows the dot tells which weights the training began with.
    let name = full.split('.').next().unwrap_or(full);
    let image = cfg.pair("image_size")?.unwrap_or((224, 224));
    let shapes = Shapes { checkpoint };
    let projection = projection(cfg, &shapes, dim)?;
    cfg.harmless(&["timm_model_pretrained", "timm_drop", "timm_drop_path", "patch_dropout", "output_tokens"]);
    let pool = cfg.text("timm_pool")?.unwrap_or("avg");

    if let Some(trunk) = trunk(name, &shapes)? {
        // Both end in an average, and their norms stand around it.
        if !matches!(pool, "" | "avg") {
            return Err(cfg.unsupported("timm_pool"));
        }
        return Ok(ImageConfig::Trunk(Trunk { kind: trunk, image, projection }));
    }
    let Some(row) = row(name) else { return Err(cfg.unsupported("timm_model_name")) };
    if name == "vit_small_patch16_224" && checkpoint.contains(PROJECTED) {
        let reason = "the small tower under these names has 12 heads, and vit_small_patch16_224 has 6; its own name is \
                      vit_small_mocov3_patch16_224";
        return Err(bad(&cfg.file(), reason));
    }
    let pool = if pool.is_empty() { row.pool } else { pool };
    let most = if name.starts_with("naflexvit") { cfg.count("image_seq_len")? } else { None };
    vit(&row, name, &shapes, (image, most), pool, projection).and_then(|vit| match vit {
        Some(vit) if vit.blocks.width.is_multiple_of(vit.blocks.heads) => Ok(ImageConfig::Vit(vit)),
        Some(vit) => {
            let reason =
                format!("{name} has {} heads, into which {} does not divide", vit.blocks.heads, vit.blocks.width);
            Err(checkpoint.bad(reason))
        }
        None => Err(cfg.unsupported("timm_pool")),
    })
}

/// The last map: a head of open_clip's, or the classifier of the network, or none.
fn projection(cfg: &Object, shapes: &Shapes, dim: usize) -> Result<Projection> {
    let biased = cfg.flag("timm_proj_bias")?.unwrap_or(false);
    let null = cfg.is_null("timm_proj");
    match cfg.text("timm_proj")? {
        // JSON's null and the empty text are one thing in Python, and absence another. Some files have no bias there.
        None if null && shapes.has(MATRIX) => Ok(Projection::Matrix),
        None if null => Ok(Projection::Biased),
        Some("") if shapes.has(MATRIX) => Ok(Projection::Matrix),
        Some("") => Ok(Projection::Biased),
        None | Some("linear") => Ok(if biased { Projection::Biased } else { Projection::Matrix }),
        Some("mlp") => Ok(Projection::TwoLayers { hidden: 2 * dim, biases: (true, biased) }),
        Some("none") => {
            let width = shapes.width("norm.weight").or(shapes.width("fc_norm.weight"));
            match width {
                Some(width) if width != dim => {
                    Err(bad(&cfg.file(), format!("no projection, so the width of {width} should be embed_dim = {dim}")))
                }
                _ => Ok(Projection::None),
            }
        }
        Some(_) => Err(cfg.unsupported("timm_proj")),
    }
}

/// Vision transformers by name.
fn row(name: &str) -> Option<Row> {
    let grid =
        |size: usize, offset: f32, columns_first: bool| Some(Grid { reference: (size, size), offset, columns_first });
    let parts: Vec<&str> = name.split('_').collect();
    Some(match parts.as_slice() {
        ["vit", "base", "mci", _] => Row { positions: Positions::Patches, ..Row::new(12) },
        ["vit", "pe", "core", size, _, _] => {
            let (heads, reference, offset) = match *size {
                "tiny" => (3, 24, 1.0),
                "small" => (6, 24, 1.0),
                "base" => (12, 14, 1.0),
                "large" => (16, 24, 1.0),
                "gigantic" => (16, 32, 0.0),
                _ => return None,
            };
            let rotation = grid(reference, offset, true);
            Row { norm_eps: 1e-5, rotation, pool: "map", pool_heads: 8, ..Row::new(heads) }
        }
        // Heads half as wide as those of timm's own small one.
        ["vit", "small", "mocov3", "patch16", _] => Row::new(12),
        ["vit", size, patch, rest @ .., edge] if patch.starts_with("patch") => {
            let heads = match *size {
                "tiny" => 3,
                "small" => 6,
                "base" => 12,
                "large" | "huge" | "so400m" | "giant" | "giantopt" | "gigantic" => 16,
                _ => return None,
            };
            // Names that came with the second generation compute what its training did; older names, which both share, do not.
            let tanh = matches!(
                (*size, *patch, *edge),
                ("base", "patch32", _) | ("large", _, "512") | ("so400m", "patch16", _) | ("giantopt", ..)
            );
            let row = Row::new(heads);
            match rest {
                [] => row,
                ["siglip", gap @ ..] => {
                    let pool = if gap == ["gap"] { "avg" } else { "map" };
                    Row { activation: if tanh { Activation::GeluTanh } else { Activation::Gelu }, pool, ..row }
                }
                ["clip"] => Row { norm_eps: 1e-5, ..row },
                ["clip", "quickgelu"] => Row { norm_eps: 1e-5, activation: Activation::QuickGelu, ..row },
                _ => return None,
            }
        }
        ["naflexvit", size @ ("base" | "so400m"), _, "siglip"] => {
            let heads = if *size == "base" { 12 } else { 16 };
            Row { activation: Activation::GeluTanh, pool: "map", ..Row::new(heads) }
        }
        ["eva", "giant", ..] => Row::new(16),
        ["eva02", size @ ("base" | "large"), _, "clip", _] => Row {
            gated: true,
            activation: Activation::Silu,
            rotation: grid(16, 0.0, false),
            ..Row::new(if *size == "base" { 12 } else { 16 })
        },
        ["eva02", "enormous", _, "clip", _] => Row { order: NormOrder::Branch, ..Row::new(16) },
        ["vitamin", size, _] => {
            let heads = match *size {
                "small" => 6,
                "base" => 12,
                "large" | "large2" => 16,
                "xlarge" => 16,
                _ => return None,
            };
            Row { gated: true, pool: "avg", ..Row::new(heads) }
        }
        _ => return None,
    })
}

/// A vision transformer of the checkpoint's sizes; `None` if nothing is known of the pooling.
fn vit(
    row: &Row,
    name: &str,
    shapes: &Shapes,
    (image, most): ((usize, usize), Option<usize>),
    pool: &str,
    projection: Projection,
) -> Result<Option<VitConfig>> {
    let width = shapes.need("blocks.0.norm1.weight", 0)?;
    let layers = shapes.count("blocks", ".norm1.weight");
    let (hidden, activation) = match () {
        () if shapes.has("blocks.0.mlp.fc1_g.weight") => {
            (shapes.need("blocks.0.mlp.fc1_g.weight", 0)?, Activation::Silu)
        }
        () if shapes.has("blocks.0.mlp.w0.weight") => (shapes.need("blocks.0.mlp.w0.weight", 0)?, Activation::Gelu),
        () => (shapes.need("blocks.0.mlp.fc1.weight", 0)?, row.activation),
    };
    let plain = TransformerConfig { width, layers, heads: row.heads, hidden, activation, norm_eps: row.norm_eps };
    let blocks = BlocksConfig {
        order: row.order,
        gated: row.gated,
        norm_attention: shapes.has("blocks.0.attn.norm.weight"),
        norm_feed: name.starts_with("vitamin"),
        norm_hidden: row.gated && !name.starts_with("vitamin") && shapes.has("blocks.0.mlp.norm.weight"),
        layer_scale: shapes.has("blocks.0.ls1.gamma") || shapes.has("blocks.0.gamma_1"),
        ..BlocksConfig::plain(&plain)
    };
    let stem = if shapes.has("patch_embed.proj.weight") {
        let size = (shapes.need("patch_embed.proj.weight", 2)?, shapes.need("patch_embed.proj.weight", 3)?);
        if size.0 == 0 || size.1 == 0 || size.0 > image.0 || size.1 > image.1 {
            return Err(shapes.checkpoint.bad(format!("patches of {size:?} are larger than pictures of {image:?}")));
        }
        Stem::Patches { size, biased: shapes.has("patch_embed.proj.bias"), norm: false }
    } else if shapes.has("embeds.proj.weight") {
        loose(shapes, image, most)?
    } else {
        let backbone = |part: &str| shapes.need(&format!("patch_embed.backbone.{part}"), 0);
        Stem::Convolutions(if name.starts_with("vitamin") {
            let depth =
                |stage: usize| shapes.count(&format!("patch_embed.backbone.stages.{stage}"), ".pre_norm.weight");
            StemConfig::Bottlenecks {
                widths: [
                    backbone("stem.conv1.weight")?,
                    backbone("stages.0.0.conv3_1x1.weight")?,
                    backbone("stages.1.0.conv3_1x1.weight")?,
                ],
                out: backbone("pool.proj.weight")?,
                depths: [depth(0), depth(1)],
            }
        } else {
            StemConfig::Tiles {
                widths: [backbone("0.conv.weight")?, backbone("1.conv.weight")?, backbone("2.conv.weight")?],
            }
        })
    };
    let class = shapes.has("cls_token");
    let pool = match pool {
        "token" if class => Pool::Token,
        "avg" => Pool::Average,
        "map" if shapes.has("attn_pool.latent") => Pool::Attention(AttentionPool {
            width,
            heads: row.pool_heads,
            queries: 1,
            norms: false,
            mapped: true,
            hidden: Some(shapes.need("attn_pool.mlp.fc1.weight", 0)?),
            activation: row.activation,
        }),
        _ => return Ok(None),
    };
    Ok(Some(VitConfig {
        blocks,
        image,
        stem,
        class,
        positions: if shapes.has("pos_embed") || shapes.has("embeds.pos_embed") {
            row.positions
        } else {
            Positions::None
        },
        norm_pre: shapes.has("norm_pre.weight"),
        rotation: row.rotation,
        norm_tokens: shapes.has("norm.weight"),
        spread: false,
        pool,
        norm_pooled: shapes.has("fc_norm.weight"),
        projection,
    }))
}

/// Patches of pictures that keep their shape; as many at most as a picture of the configuration's size has, unless it says
/// how many.
fn loose(shapes: &Shapes, image: (usize, usize), most: Option<usize>) -> Result<Stem> {
    let (numbers, table) = (shapes.need("embeds.proj.weight", 1)?, shapes.need("embeds.pos_embed", 1)?);
    let edge = (numbers / 3).isqrt();
    // Rows of the carrier hold one patch and the size of the grid.
    if edge * edge * 3 != numbers || !(2..=256).contains(&edge) {
        return Err(shapes.checkpoint.bad(format!("{TRUNK}.embeds.proj.weight takes no square patches")));
    }
    let most = most.unwrap_or(image.0 / edge * (image.1 / edge));
    if !(1..=1 << 14).contains(&most) {
        return Err(shapes.checkpoint.bad(format!("no picture has {most} patches")));
    }
    Ok(Stem::Loose { edge, table, most })
}

/// Trunks of convolutions by name.
fn trunk(name: &str, shapes: &Shapes) -> Result<Option<TrunkKind>> {
    let parts: Vec<&str> = name.split('_').collect();
    Ok(Some(match parts.as_slice() {
        ["convnext", "tiny" | "small" | "base" | "large" | "xlarge"] => convnext(shapes, 1e-6)?,
        ["convnext", "xxlarge"] => convnext(shapes, 1e-5)?,
        ["fastvit", "mci0" | "mci1" | "mci2"] => fastvit(shapes, &[2, 3], None)?,
        ["fastvit", "mci3" | "mci4"] => fastvit(shapes, &[], Some(1e-5))?,
        _ => return Ok(None),
    }))
}

fn convnext(shapes: &Shapes, norm_eps: f64) -> Result<TrunkKind> {
    let mut config = ConvNextConfig { depths: [0; 4], widths: [0; 4], norm_eps };
    for stage in 0..4 {
        config.depths[stage] = shapes.count(&format!("stages.{stage}.blocks"), ".conv_dw.weight");
        config.widths[stage] = shapes.need(&format!("stages.{stage}.blocks.0.conv_dw.weight"), 0)?;
    }
    Ok(TrunkKind::ConvNext(config))
}

fn fastvit(shapes: &Shapes, weighing: &[usize], layer_norm: Option<f64>) -> Result<TrunkKind> {
    let stages = shapes.count("stages", ".blocks.0.mlp.fc1.weight");
    let width = |i: usize| shapes.need(&format!("stages.{i}.blocks.0.mlp.fc2.weight"), 0);
    let widths = (0..stages).map(width).collect::<Result<Vec<_>>>()?;
    let ratio = match widths.first() {
        Some(&first) if first > 0 => shapes.need("stages.0.blocks.0.mlp.fc1.weight", 0)? / first,
        _ => return Err(shapes.checkpoint.bad(format!("{TRUNK}.stages has no blocks"))),
    };
    Ok(TrunkKind::FastVit(FastVitConfig {
        depths: (0..stages).map(|i| shapes.count(&format!("stages.{i}.blocks"), ".mlp.fc1.weight")).collect(),
        attends: (0..stages).map(|i| shapes.has(&format!("stages.{i}.blocks.0.token_mixer.qkv.weight"))).collect(),
        weighs: (0..stages).map(|i| weighing.contains(&i)).collect(),
        stem_branch: shapes.has("stem.0.conv_scale.conv.weight"),
        layer_norm,
        ratio,
        widths,
    }))
}

/// Shapes of the tensors of the trunk.
struct Shapes<'a> {
    checkpoint: &'a Checkpoint,
}

impl Shapes<'_> {
    fn has(&self, name: &str) -> bool {
        self.checkpoint.contains(&format!("{TRUNK}.{name}"))
    }

    fn width(&self, name: &str) -> Option<usize> {
        self.checkpoint.shape(&format!("{TRUNK}.{name}"))?.first().copied()
    }

    /// One dimension of a tensor that must be there.
    fn need(&self, name: &str, dimension: usize) -> Result<usize> {
        let shape = self.checkpoint.shape(&format!("{TRUNK}.{name}"));
        let found = shape.and_then(|shape| shape.get(dimension).copied());
        found.filter(|&n| n > 0).ok_or_else(|| self.checkpoint.bad(format!("the tensor {TRUNK}.{name} is missing")))
    }

    /// How many of a list there are, numbered from zero.
    fn count(&self, list: &str, part: &str) -> usize {
        (0..).take_while(|i| self.has(&format!("{list}.{i}{part}"))).count()
    }
}

/// Where the normal form's tensor `image.{rest}` stands in a checkpoint.
pub(super) fn origin(rest: &str, checkpoint: &Checkpoint) -> Origin {
    let has = |name: &str| checkpoint.contains(&format!("{TRUNK}.{name}"));
    let trunk = |name: String| Origin::Same(format!("{TRUNK}.{name}"));
    if let Some(part) = rest.strip_prefix("projection.") {
        if part == "weight" && has(MATRIX) {
            return Origin::Transposed(format!("{TRUNK}.{MATRIX}"));
        }
        if part == "weight" && checkpoint.contains(PROJECTED) {
            return Origin::Transposed(PROJECTED.to_owned());
        }
        return Origin::Same(match part {
            "weight" | "bias" if checkpoint.contains("visual.head.proj.weight") => format!("visual.head.proj.{part}"),
            "weight" | "bias" if has("head.fc.weight") => format!("{TRUNK}.head.fc.{part}"),
            "weight" | "bias" => format!("{TRUNK}.head.{part}"),
            _ => format!("visual.head.mlp.{}", part.replace("up.", "fc1.").replace("down.", "fc2.")),
        });
    }
    if let Some(part) = rest.strip_prefix("pool.") {
        let (kind, kv) = match part.split_once('.') {
            Some(("k", part)) => (0, Some(part)),
            Some(("v", part)) => (1, Some(part)),
            _ => (0, None),
        };
        if let Some(part) = kv {
            return Origin::Part { name: format!("{TRUNK}.attn_pool.kv.{part}"), index: kind, count: 2 };
        }
        let part =
            part.replace("query", "latent").replace("out.", "proj.").replace("up.", "fc1.").replace("down.", "fc2.");
        return trunk(format!("attn_pool.{part}"));
    }
    if let Some(part) = rest.strip_prefix("norm_post.") {
        return trunk(if has("fc_norm.weight") { format!("fc_norm.{part}") } else { format!("norm.{part}") });
    }
    let Some((number, part)) = rest.strip_prefix("blocks.").and_then(|rest| rest.split_once('.')) else {
        return trunk(match rest {
            "class" => "cls_token".to_owned(),
            "position" if has("embeds.pos_embed") => {
                return Origin::Square(format!("{TRUNK}.embeds.pos_embed"));
            }
            "position" => "pos_embed".to_owned(),
            "patch.weight" | "patch.bias" if has("embeds.proj.weight") => rest.replace("patch.", "embeds.proj."),
            _ => rest.strip_prefix("trunk.").map_or_else(|| rest.replace("patch.", "patch_embed.proj."), str::to_owned),
        });
    };
    let block = |part: &str| format!("blocks.{number}.{part}");
    let full = |part: &str| format!("{TRUNK}.blocks.{number}.{part}");
    let some = |part: &str| Some(full(part)).filter(|name| checkpoint.contains(name));
    match part {
        "attention.qkv.weight" | "attention.qkv.bias" if has(&block("attn.q_proj.weight")) => {
            let part = part.rsplit('.').next().unwrap_or("weight");
            // Where keys have no bias, it is zero: a constant added to all scores of a query changes nothing.
            Origin::Stacked(["q", "k", "v"].map(|p| some(&format!("attn.{p}_proj.{part}"))))
        }
        "attention.qkv.bias" if has(&block("attn.q_bias")) => {
            Origin::Stacked([Some(full("attn.q_bias")), None, Some(full("attn.v_bias"))])
        }
        "scale_1" | "scale_2" if has(&block("gamma_1")) => trunk(block(&part.replace("scale", "gamma"))),
        "scale_1" => trunk(block("ls1.gamma")),
        "scale_2" => trunk(block("ls2.gamma")),
        _ => {
            let (gate, up, down) = match () {
                () if has(&block("mlp.w0.weight")) => ("mlp.w0", "mlp.w1", "mlp.w2"),
                () if has(&block("mlp.fc1_g.weight")) => ("mlp.fc1_g", "mlp.fc1_x", "mlp.fc2"),
                () => ("", "mlp.fc1", "mlp.fc2"),
            };
            trunk(block(
                &part
                    .replace("norm_1", "norm1")
                    .replace("norm_2", "norm2")
                    .replace("attention.qkv", "attn.qkv")
                    .replace("attention.norm", "attn.norm")
                    .replace("attention.out", "attn.proj")
                    .replace("mlp.norm_in", "mlp.norm")
                    .replace("mlp.gate", gate)
                    .replace("mlp.up", up)
                    .replace("mlp.down", down),
            ))
        }
    }
}
