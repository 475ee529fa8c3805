use regard::*;
use std::time::Instant;
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let n: usize = args[1].parse().unwrap();
    let threads: usize = args[2].parse().unwrap();
    let (h, d) = (8usize, 128usize);
    let text = |l: &str| format!("heads = {{ query = 8, dim = 128 }}\n{l}");
    let lines = args.get(3).map(|s| s.as_str()).unwrap_or("lookahead = {}");
    let castle =
        Kernel::compile(&parse(&text(lines), "c.toml", &NoFiles).unwrap().spec, &machine::host()).unwrap();
    let plain =
        Kernel::compile(&parse(&text("mask = 'causal'"), "p.toml", &NoFiles).unwrap().spec, &machine::host())
            .unwrap();
    let pool = Pool::new(threads).unwrap();
    let steps = 64usize;
    let mut cache = castle.cache(CacheLimits::new(1, n + 2 * steps)).unwrap();
    let mut pcache = plain.cache(CacheLimits::new(1, n + 2 * steps)).unwrap();
    let (s, ps) = (cache.open().unwrap(), pcache.open().unwrap());
    let mut x = 1u64;
    let data: Vec<f32> = (0..5 * h * 16 * d)
        .map(|_| {
            x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            ((x >> 40) as f32 / (1u64 << 24) as f32 - 0.5) * 2.0
        })
        .collect();
    let view = |i: usize, c: usize| View::new(&data[i * h * 16 * d..], [1, h, c], [0, 16 * d, d], d).unwrap();
    let keys = |c: usize| {
        KeyRows::Lookahead(LookaheadKeys {
            k_c: view(0, c),
            v_c: view(1, c),
            q_u: view(2, c),
            k_u: view(3, c),
            v_u: view(4, c),
        })
    };
    for _ in 0..n / 16 {
        castle.append_with(&pool, &mut cache, s, Tokens::of(keys(16))).unwrap();
        plain.append(&mut pcache, ps, Tokens::new(view(0, 16), view(1, 16))).unwrap();
    }
    let mut step = castle.step(&cache, 1, threads).unwrap();
    let mut pstep = plain.step(&pcache, 1, threads).unwrap();
    let mut o = vec![0f32; h * d];
    let (mut ta, mut td, mut tp) = (vec![], vec![], vec![]);
    for _ in 0..steps {
        let t = Instant::now();
        castle.append_with(&pool, &mut cache, s, Tokens::of(keys(1))).unwrap();
        ta.push(t.elapsed().as_secs_f64());
        let out = Outputs { o: ViewMut::new(&mut o, [1, h, 1], [0, d, d], d).unwrap(), lse: None };
        let t = Instant::now();
        castle.decode(&mut step, &pool, &cache, &[s], Queries::new(view(0, 1)), out).unwrap();
        td.push(t.elapsed().as_secs_f64());
        plain.append(&mut pcache, ps, Tokens::new(view(0, 1), view(1, 1))).unwrap();
        let out = Outputs { o: ViewMut::new(&mut o, [1, h, 1], [0, d, d], d).unwrap(), lse: None };
        let t = Instant::now();
        plain.decode(&mut pstep, &pool, &pcache, &[ps], Queries::new(view(0, 1)), out).unwrap();
        tp.push(t.elapsed().as_secs_f64());
    }
    let med = |v: &[f64]| {
        let mut v = v.to_vec();
        v.sort_by(|a, b| a.total_cmp(b));
        v[v.len() / 2]
    };
    // per phase in the lesson cycle
    let by: Vec<String> = (0..16)
        .map(|i| format!("{:.1}", 1e3 * med(&td.iter().skip(i).step_by(16).copied().collect::<Vec<_>>())))
        .collect();
    let lesson = ta.iter().skip(1).step_by(16).copied().collect::<Vec<_>>();
    let bytes = (4 * n * h * d * 4) as f64;
    let m = td.iter().sum::<f64>() / steps as f64;
    println!("decode by phase ms: {}", by.join(" "));
    println!(
        "decode mean {:.2} ms = {:.1} GB/s; lesson {:.2} ms, append else {:.3}; with lessons {:.2} = {:.1} GB/s; plain {:.2} ms = {:.1} GB/s",
        1e3 * m,
        bytes / m / 1e9,
        1e3 * med(&lesson),
        1e3 * med(&ta),
        1e3 * (m + ta.iter().sum::<f64>() / steps as f64),
        bytes / (m + ta.iter().sum::<f64>() / steps as f64) / 1e9,
        1e3 * med(&tp),
        bytes / 2.0 / med(&tp) / 1e9
    );
}
