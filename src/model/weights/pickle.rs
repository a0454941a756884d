//! The state dict in a pickle of `torch.save`, read as data.
//!
//! A pickle is a program for a stack machine that may name any Python function. Here nothing is called: the few constructors
//! that describe tensors are recognised by name, everything else is a value without meaning. Values live in one table and
//! refer to each other by number, so shared, cyclic or endlessly nested values cost what they take in the file and no more.

use std::collections::HashMap;

/// A tensor as the pickle describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tensor {
    pub(super) name: String,
    /// Class of its storage, such as `HalfStorage`.
    pub(super) storage: String,
    /// Name of the part of the archive with its numbers.
    pub(super) key: String,
    /// Its first number within that part.
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    /// Numbers between neighbours along each dimension.
    pub(super) strides: Vec<usize>,
}

impl Tensor {
    /// Whether the numbers stand in row-major order.
    pub(super) fn is_contiguous(&self) -> bool {
        let mut expected = 1;
        self.shape.iter().zip(&self.strides).rev().all(|(&dim, &stride)| {
            let fits = dim == 1 || stride == expected;
            expected *= dim.max(1);
            fits
        })
    }
}

/// Where training code puts a state dict, beside its optimiser and its settings.
const NESTS: [&str; 4] = ["state_dict", "model", "CLIP", "model_state_dict"];

/// Tensors of a state dict at the root, of one under one of the usual keys, or of the modules of a TorchScript archive; an error
/// says in words what is wrong.
pub(super) fn state_dict(bytes: &[u8]) -> Result<Vec<Tensor>, String> {
    let mut machine = Machine { bytes, at: 0, values: Vec::new(), stack: Vec::new(), memo: HashMap::new() };
    let root = machine.run().map_err(|e| format!("a damaged pickle: {e} at byte {}", machine.at))?;
    if let Value::Object(_) = machine.values[root] {
        let (mut tensors, mut visits) = (Vec::new(), 0);
        machine.modules(root, String::new(), &mut tensors, &mut visits)?;
        return if tensors.is_empty() { Err("the modules hold no tensors".to_owned()) } else { Ok(tensors) };
    }
    let mut entries =
        machine.entries(root).ok_or("the pickle holds no state dict, which is a dict of named tensors")?;
    let nested = NESTS.iter().find_map(|nest| {
        let (_, value) = entries.iter().find(|(key, _)| machine.text(*key) == Some(nest))?;
        machine.entries(*value)
    });
    if let Some(inner) = nested {
        entries = inner;
    }
    let tensors: Vec<Tensor> = entries
        .iter()
        .filter_map(|&(key, value)| match &machine.values[value] {
            Value::Tensor(tensor) => Some(Tensor { name: machine.text(key)?.to_owned(), ..tensor.clone() }),
            _ => None,
        })
        .collect();
    if tensors.is_empty() { Err("the pickle holds no named tensors".to_owned()) } else { Ok(tensors) }
}

/// Number of a value in the table.
type Id = usize;

#[derive(Clone, Debug)]
enum Value {
    /// Whatever has no meaning for a state dict.
    Opaque,
    Mark,
    Int(i64),
    Text(String),
    Global(String),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// A module of a TorchScript archive, and what it holds once that is known.
    Object(Option<Id>),
    Storage {
        class: String,
        key: String,
    },
    Tensor(Tensor),
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    values: Vec<Value>,
    stack: Vec<Id>,
    memo: HashMap<u32, Id>,
}

type Step<T> = Result<T, &'static str>;

impl<'a> Machine<'a> {
    fn run(&mut self) -> Step<Id> {
        loop {
            match self.byte()? {
                b'.' => return self.pop(),
                0x80 => self.skip(1)?,
                0x95 => self.skip(8)?,
                b'(' => self.push(Value::Mark),
                b'0' => _ = self.pop()?,
                // Gives attributes to the object below: a module keeps its parts there, a state dict version numbers.
                b'b' => {
                    let state = self.pop()?;
                    let top = *self.stack.last().ok_or("an empty stack")?;
                    if let Value::Object(held @ None) = &mut self.values[top] {
                        *held = Some(state);
                    }
                }
                b'2' => {
                    let top = *self.stack.last().ok_or("an empty stack")?;
                    self.stack.push(top);
                }
                b'N' | 0x88 | 0x89 | 0x8f => self.push(Value::Opaque),
                b'G' => self.skip_and_push(8)?,
                b'K' => self.integer(1)?,
                b'M' => self.integer(2)?,
                b'J' => self.integer(4)?,
                0x8a => {
                    let len = self.byte()?;
                    self.integer(len.into())?;
                }
                b'X' => self.string(4)?,
                0x8c => self.string(1)?,
                0x8d => self.string(8)?,
                b'T' | b'B' => self.blob(4)?,
                b'U' | b'C' => self.blob(1)?,
                0x8e => self.blob(8)?,
                b')' => self.push(Value::Tuple(Vec::new())),
                0x85 => self.tuple(1)?,
                0x86 => self.tuple(2)?,
                0x87 => self.tuple(3)?,
                b't' => {
                    let items = self.since_mark()?;
                    self.push(Value::Tuple(items));
                }
                b']' => self.push(Value::List(Vec::new())),
                b'l' => {
                    let items = self.since_mark()?;
                    self.push(Value::List(items));
                }
                b'a' => {
                    let item = self.pop()?;
                    self.append(vec![item])?;
                }
                b'e' => {
                    let items = self.since_mark()?;
                    self.append(items)?;
                }
                0x90 => drop(self.since_mark()?),
                0x91 => {
                    self.since_mark()?;
                    self.push(Value::Opaque);
                }
                b'}' => self.push(Value::Dict(Vec::new())),
                b'd' => {
                    let items = self.since_mark()?;
                    self.push(Value::Dict(Vec::new()));
                    self.set_items(&items)?;
                }
                b's' => {
                    let value = self.pop()?;
                    let key = self.pop()?;
                    self.set_items(&[key, value])?;
                }
                b'u' => {
                    let items = self.since_mark()?;
                    self.set_items(&items)?;
                }
                b'q' => self.put(1)?,
                b'r' => self.put(4)?,
                0x94 => {
                    let top = *self.stack.last().ok_or("an empty stack")?;
                    let slot = self.memo.len() as u32;
                    self.memo.insert(slot, top);
                }
                b'h' => self.recall(1)?,
                b'j' => self.recall(4)?,
                b'c' => {
                    let module = self.line()?;
                    let name = self.line()?;
                    self.push(Value::Global(format!("{module} {name}")));
                }
                0x93 => {
                    let (name, module) = (self.pop()?, self.pop()?);
                    let global = match (self.text(module), self.text(name)) {
                        (Some(module), Some(name)) => Value::Global(format!("{module} {name}")),
                        _ => return Err("a function without a name"),
                    };
                    self.push(global);
                }
                b'Q' => {
                    let id = self.pop()?;
                    let storage = self.storage(id).unwrap_or(Value::Opaque);
                    self.push(storage);
                }
                b'R' => {
                    let (arguments, function) = (self.pop()?, self.pop()?);
                    let value = self.construct(function, arguments).unwrap_or(Value::Opaque);
                    self.push(value);
                }
                0x81 => {
                    self.pop()?;
                    let class = self.pop()?;
                    let module = matches!(&self.values[class], Value::Global(name) if name.starts_with("__torch__"));
                    self.push(if module { Value::Object(None) } else { Value::Opaque });
                }
                0x92 => {
                    self.pop()?;
                    self.pop()?;
                    self.pop()?;
                    self.push(Value::Opaque);
                }
                _ => return Err("an operation that torch.save does not write"),
            }
        }
    }

    /// Collects the tensors of a module and of the modules in it, under dotted names.
    fn modules(&self, id: Id, prefix: String, tensors: &mut Vec<Tensor>, visits: &mut usize) -> Result<(), String> {
        /// More than any model has: modules may be named twice, and a hostile file would do so at each level.
        const MOST: usize = 100_000;
        const DEEPEST: usize = 32;
        let Value::Object(Some(held)) = self.values[id] else { return Ok(()) };
        *visits += 1;
        if prefix.matches('.').count() > DEEPEST || *visits > MOST || tensors.len() > MOST {
            return Err("modules within modules without an end".to_owned());
        }
        for (key, value) in self.entries(held).unwrap_or_default() {
            let Some(name) = self.text(key) else { continue };
            match &self.values[value] {
                Value::Tensor(tensor) => tensors.push(Tensor { name: format!("{prefix}{name}"), ..tensor.clone() }),
                Value::Object(_) => self.modules(value, format!("{prefix}{name}."), tensors, visits)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// The value of a call, for the few functions that describe tensors.
    fn construct(&self, function: Id, arguments: Id) -> Option<Value> {
        let (Value::Global(function), Value::Tuple(arguments)) = (&self.values[function], &self.values[arguments])
        else {
            return None;
        };
        let value = |i: usize| arguments.get(i).map(|&id| &self.values[id]);
        match function.as_str() {
            "collections OrderedDict" => Some(Value::Dict(Vec::new())),
            "torch._utils _rebuild_parameter" => value(0).filter(|v| matches!(v, Value::Tensor(_))).cloned(),
            "torch._tensor _rebuild_from_type_v2" => {
                let (inner, arguments) = (*arguments.first()?, *arguments.get(2)?);
                let Value::Global(name) = &self.values[inner] else { return None };
                // One level only: the function of a function is nothing that PyTorch writes.
                (name != function).then(|| self.construct(inner, arguments)).flatten()
            }
            "torch._utils _rebuild_tensor_v2" => {
                let Value::Storage { class, key } = value(0)? else { return None };
                let Value::Int(offset) = value(1)? else { return None };
                let (shape, strides) = (self.sizes(value(2)?)?, self.sizes(value(3)?)?);
                let offset = usize::try_from(*offset).ok()?;
                (shape.len() == strides.len()).then(|| {
                    let (storage, key) = (class.clone(), key.clone());
                    Value::Tensor(Tensor { name: String::new(), storage, key, offset, shape, strides })
                })
            }
            _ => None,
        }
    }

    /// `('storage', torch.HalfStorage, '17', 'cpu', 512)`.
    fn storage(&self, id: Id) -> Option<Value> {
        let Value::Tuple(parts) = &self.values[id] else { return None };
        let Value::Global(class) = &self.values[*parts.get(1)?] else { return None };
        let key = self.text(*parts.get(2)?)?.to_owned();
        Some(Value::Storage { class: class.rsplit(' ').next()?.to_owned(), key })
    }

    fn sizes(&self, value: &Value) -> Option<Vec<usize>> {
        let Value::Tuple(items) = value else { return None };
        // No tensor has more dimensions, and a long tuple that is named often would be copied often.
        if items.len() > 8 {
            return None;
        }
        let size = |&id: &Id| if let Value::Int(n) = self.values[id] { usize::try_from(n).ok() } else { None };
        items.iter().map(size).collect()
    }

    fn text(&self, id: Id) -> Option<&str> {
        if let Value::Text(text) = &self.values[id] { Some(text) } else { None }
    }

    fn entries(&self, id: Id) -> Option<Vec<(Id, Id)>> {
        if let Value::Dict(entries) = &self.values[id] { Some(entries.clone()) } else { None }
    }

    fn push(&mut self, value: Value) {
        self.stack.push(self.values.len());
        self.values.push(value);
    }

    fn pop(&mut self) -> Step<Id> {
        self.stack.pop().ok_or("an empty stack")
    }

    fn since_mark(&mut self) -> Step<Vec<Id>> {
        let mark = self.stack.iter().rposition(|&id| matches!(self.values[id], Value::Mark)).ok_or("no mark")?;
        let items = self.stack.split_off(mark + 1);
        self.stack.pop();
        Ok(items)
    }

    fn tuple(&mut self, len: usize) -> Step<()> {
        let start = self.stack.len().checked_sub(len).ok_or("an empty stack")?;
        let items = self.stack.split_off(start);
        self.push(Value::Tuple(items));
        Ok(())
    }

    fn append(&mut self, mut items: Vec<Id>) -> Step<()> {
        let top = *self.stack.last().ok_or("an empty stack")?;
        if let Value::List(list) = &mut self.values[top] {
            list.append(&mut items);
        }
        Ok(())
    }

    fn set_items(&mut self, items: &[Id]) -> Step<()> {
        let top = *self.stack.last().ok_or("an empty stack")?;
        let (pairs, rest) = items.as_chunks::<2>();
        if !rest.is_empty() {
            return Err("a key without a value");
        }
        if let Value::Dict(dict) = &mut self.values[top] {
            dict.extend(pairs.iter().map(|&[key, value]| (key, value)));
        }
        Ok(())
    }

    fn put(&mut self, bytes: usize) -> Step<()> {
        let slot = self.unsigned(bytes)? as u32;
        let top = *self.stack.last().ok_or("an empty stack")?;
        self.memo.insert(slot, top);
        Ok(())
    }

    fn recall(&mut self, bytes: usize) -> Step<()> {
        let slot = self.unsigned(bytes)? as u32;
        self.stack.push(*self.memo.get(&slot).ok_or("a value that was never stored")?);
        Ok(())
    }

    fn integer(&mut self, bytes: usize) -> Step<()> {
        let raw = self.take(bytes)?;
        // Longer than any size: without meaning here.
        let value = match raw.len() {
            0 => Value::Int(0),
            len @ 1..=8 => {
                let mut wide = [0; 8];
                wide[..len].copy_from_slice(raw);
                Value::Int(i64::from_le_bytes(wide))
            }
            _ => Value::Opaque,
        };
        self.push(value);
        Ok(())
    }

    fn string(&mut self, bytes: usize) -> Step<()> {
        let len = self.unsigned(bytes)?;
        let raw = self.take(usize::try_from(len).map_err(|_| "an endless string")?)?;
        let text = std::str::from_utf8(raw).map_err(|_| "a text that is not UTF-8")?.to_owned();
        self.push(Value::Text(text));
        Ok(())
    }

    fn blob(&mut self, bytes: usize) -> Step<()> {
        let len = self.unsigned(bytes)?;
        self.skip_and_push(usize::try_from(len).map_err(|_| "an endless string")?)
    }

    fn skip_and_push(&mut self, bytes: usize) -> Step<()> {
        self.skip(bytes)?;
        self.push(Value::Opaque);
        Ok(())
    }

    fn line(&mut self) -> Step<&'a str> {
        let rest = &self.bytes[self.at..];
        let len = rest.iter().position(|&b| b == b'\n').ok_or("the end of the file")?;
        self.at += len + 1;
        std::str::from_utf8(&rest[..len]).map_err(|_| "a name that is not UTF-8")
    }

    fn byte(&mut self) -> Step<u8> {
        Ok(self.take(1)?[0])
    }

    fn unsigned(&mut self, bytes: usize) -> Step<u64> {
        let mut wide = [0; 8];
        wide[..bytes].copy_from_slice(self.take(bytes)?);
        Ok(u64::from_le_bytes(wide))
    }

    fn skip(&mut self, bytes: usize) -> Step<()> {
        self.take(bytes).map(drop)
    }

    fn take(&mut self, bytes: usize) -> Step<&'a [u8]> {
        let end = self.at.checked_add(bytes).ok_or("the end of the file")?;
        let taken = self.bytes.get(self.at..end).ok_or("the end of the file")?;
        self.at = end;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_that_are_named_twice_at_each_level_end_in_an_error() {
        let mut bytes = vec![0x80, 2];
        for level in 0..30_u8 {
            bytes.extend_from_slice(b"c__torch__.m\nModule\n)\x81q");
            bytes.push(level);
            bytes.extend_from_slice(b"}(");
            if level > 0 {
                for name in [b"a", b"b"] {
                    bytes.extend_from_slice(b"X\x01\0\0\0");
                    bytes.extend_from_slice(name);
                    bytes.extend_from_slice(&[b'h', level - 1]);
                }
            }
            bytes.extend_from_slice(b"ub");
        }
        bytes.push(b'.');
        assert!(state_dict(&bytes).unwrap_err().contains("without an end"));
    }

    #[test]
    fn a_function_is_never_called_and_its_value_means_nothing() {
        // os.system("touch /tmp/owned") as the whole pickle, then as the value of a key.
        let whole = b"\x80\x02cos\nsystem\nX\x10\x00\x00\x00touch /tmp/owned\x85R.";
        assert!(state_dict(whole).unwrap_err().contains("no state dict"));
        let inside = b"\x80\x02}X\x01\x00\x00\x00wcos\nsystem\nX\x10\x00\x00\x00touch /tmp/owned\x85Rs.";
        assert!(state_dict(inside).unwrap_err().contains("no named tensors"));
    }

    #[test]
    fn damage_is_an_error_and_never_a_panic() {
        let cases: [&[u8]; 8] =
            [b"", b"\x80", b".", b"R.", b"X\xff\xff\xff\xff", b"(((t", b"h\x05.", b"\x80\x02}X\x01\x00\x00\x00as."];
        for case in cases {
            assert!(state_dict(case).is_err(), "{case:?}");
        }
    }

    #[test]
    fn values_that_contain_themselves_a_million_times_cost_only_their_bytes() {
        // Each line is a pair of the one before: 2^60 values when written out.
        let mut bytes = b"\x80\x02)q\x00".to_vec();
        for _ in 0..60 {
            bytes.extend(b"h\x00h\x00\x86q\x00");
        }
        bytes.extend([0x85; 100_000]);
        bytes.push(b'.');
        assert!(state_dict(&bytes).is_err());
    }

    #[test]
    fn row_major_order_is_told_from_a_transposed_view() {
        let tensor = |shape: &[usize], strides: &[usize]| Tensor {
            name: String::new(),
            storage: String::new(),
            key: String::new(),
            offset: 0,
            shape: shape.to_vec(),
            strides: strides.to_vec(),
        };
        assert!(tensor(&[2, 3], &[3, 1]).is_contiguous());
        assert!(tensor(&[], &[]).is_contiguous());
        assert!(tensor(&[2, 1, 3], &[3, 77, 1]).is_contiguous());
        assert!(!tensor(&[2, 3], &[1, 2]).is_contiguous());
    }
}
