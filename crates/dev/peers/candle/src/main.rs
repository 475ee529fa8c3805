//! candle's attention on CPUs behind the line protocol of `cargo xtask bench` (docs/measuring.md).
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::error::Error;
use std::hint::black_box;
use std::io::{BufRead, Write};
use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use candle_nn::attention::{AttnMask, flash_attn};

type Result<T> = std::result::Result<T, Box<dyn Error>>;
type Fields<'a> = HashMap<&'a str, &'a str>;

/// Of the crate in the manifest.
const VERSION: &str = "0.11.1";

/// A head's slope is 2^(-bias · (h + 1) / heads).
const MAX_BIAS: f32 = 8.0;

/// A call that takes longer than this is not repeated to warm up.
const SLOW_SECONDS: f64 = 0.5;

/// What was set up: tensors as [1, token, head, channel].
struct Slot {
    q: Tensor,
    k: Tensor,
    v: Tensor,
    causal: bool,
    scale: f32,
    bias: Option<f32>,
    softcap: Option<f32>,
    seconds: f64,
}

impl Slot {
    fn new(fields: &Fields<'_>) -> Result<Self> {
        let number = |key: &str| fields.get(key).map_or(Ok(0), |text| text.parse::<usize>());
        let (heads, kv_heads, dim, tokens) =
            (number("heads")?, number("kv_heads")?, number("dim")?, number("tokens")?);
        let dtype = match field(fields, "dtype")? {
            "f32" => DType::F32,
            "f16" => DType::F16,
            "bf16" => DType::BF16,
            other => return Err(format!("found the type {other}, expected f32, f16 or bf16").into()),
        };
        let folder = field(fields, "dir")?;
        let rows = |name: &str, heads: usize| -> Result<Tensor> {
            let bytes = std::fs::read(format!("{folder}/{name}.f32"))?;
            let numbers = bytes.as_chunks().0.iter().map(|&word| f32::from_le_bytes(word)).collect();
            let by_head = Tensor::from_vec(numbers, (1, heads, tokens, dim), &Device::Cpu)?;
            Ok(by_head.to_dtype(dtype)?.transpose(1, 2)?.contiguous()?)
        };
        let softcap: Option<f32> = fields.get("softcap").map(|text| text.parse()).transpose()?;
        let mut slot = Self {
            q: rows("q", heads)?,
            k: rows("k", kv_heads)?,
            v: rows("v", kv_heads)?,
            causal: number("causal")? == 1,
            scale: (dim as f32).powf(-0.5),
            bias: (number("alibi")? == 1).then_some(MAX_BIAS),
            softcap,
            seconds: 0.0,
        };
        slot.seconds = slot.timed(1)?;
        if slot.seconds < SLOW_SECONDS {
            slot.seconds = slot.timed(2)?;
        }
        Ok(slot)
    }

    /// [1, head, token, channel].
    fn call(&self) -> candle_core::Result<Tensor> {
        let Self { q, k, v, scale, bias, softcap, .. } = self;
        let mask = if self.causal { AttnMask::causal_with_offset(0) } else { AttnMask::None };
        match q.dtype() {
            DType::F32 => flash_attn::<f32>(q, k, v, *scale, mask, *bias, *softcap),
            DType::F16 => flash_attn::<half::f16>(q, k, v, *scale, mask, *bias, *softcap),
            _ => flash_attn::<half::bf16>(q, k, v, *scale, mask, *bias, *softcap),
        }
    }

    /// Seconds of a call.
    fn timed(&self, calls: usize) -> Result<f64> {
        let start = Instant::now();
        for _ in 0..calls {
            black_box(self.call()?);
        }
        Ok(start.elapsed().as_secs_f64() / calls as f64)
    }

    /// Seconds of a call, over as many as take `seconds` together, and their number.
    fn run(&mut self, seconds: f64) -> Result<(f64, usize)> {
        if self.seconds < seconds {
            // What ran in between has taken the caches.
            self.seconds = self.timed(1)?;
        }
        let calls = (seconds / self.seconds.max(1e-7)).ceil().max(1.0) as usize;
        self.seconds = self.timed(calls)?;
        Ok((self.seconds, calls))
    }

    fn output(&self) -> Result<Vec<u8>> {
        let numbers = self.call()?.to_dtype(DType::F32)?.contiguous()?.flatten_all()?.to_vec1::<f32>()?;
        Ok(numbers.iter().flat_map(|x| x.to_le_bytes()).collect())
    }
}

fn field<'a>(fields: &Fields<'a>, key: &str) -> Result<&'a str> {
    fields.get(key).copied().ok_or_else(|| format!("expected the field {key}=").into())
}

fn answer(slots: &mut HashMap<String, Slot>, line: &str) -> Result<String> {
    let (verb, rest) = line.split_once('\t').unwrap_or((line, ""));
    let fields: Fields<'_> = rest.split('\t').filter_map(|part| part.split_once('=')).collect();
    let name = field(&fields, "slot")?;
    match verb {
        "setup" => {
            slots.insert(name.to_owned(), Slot::new(&fields)?);
            return Ok("ok".to_owned());
        }
        "free" => {
            slots.remove(name);
            return Ok("ok".to_owned());
        }
        _ => {}
    }
    let slot = slots.get_mut(name).ok_or("no such slot")?;
    match verb {
        "run" => {
            let (seconds, calls) = slot.run(field(&fields, "seconds")?.parse()?)?;
            Ok(format!("time\tseconds={seconds:e}\tcalls={calls}"))
        }
        "output" => {
            std::fs::write(field(&fields, "path")?, slot.output()?)?;
            Ok("ok".to_owned())
        }
        _ => Err(format!("found the verb {verb}, expected setup, run, output or free").into()),
    }
}

fn main() -> Result<()> {
    // The count of threads comes by RAYON_NUM_THREADS.
    let mut slots = HashMap::new();
    let mut out = std::io::stdout().lock();
    writeln!(out, "ready\tversion={VERSION}")?;
    out.flush()?;
    for line in std::io::stdin().lock().lines() {
        let answer = answer(&mut slots, &line?);
        let answer = answer.unwrap_or_else(|error| format!("err\tmessage={}", error.to_string().replace(['\n', '\t'], " ")));
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    Ok(())
}
