//! Rings: what whole caches give, in less memory.

use regard::{CacheError, CacheLimits, Dtype, Kernel, Solo, StoreError};
use regard_ir::spec::{self, CacheLayout, Spec};
use regard_tests::cached::{self, Filled};
use regard_tests::{engines, run, specs};

use crate::{Dice, Sizes, attend, bits};

/// Specs whose keys a ring can hold, with tokens that it needs.
const RINGS: [&str; 6] = [
    "mask = 'causal & window(100)'",
    "mask = 'causal & (window(37) | first(5))'\nweights = { sink = 'one' }",
    "mask = 'causal & q // 64 == k // 64'",
    "mask = 'causal & band(50, 0) & k % 3 != 1'\nposition = { rope = { theta = 10_000 } }",
    "pseudo = { heads = 3, form = 'compact' }\nmask = 'causal & (window(200) | first(7))'\n\
     position = { rope = { theta = 10_000 } }",
    "pseudo = { heads = 3, form = 'expanded' }\nmask = 'causal & (window(200) | first(7))'\n\
     position = { rope = { theta = 10_000 } }",
];

#[test]
fn rings_give_what_whole_caches_do() {
    for mask in RINGS {
        let text = format!(
            "heads = {{ query = 4, kv = 2, dim = 24 }}\n{mask}\ncache = {{ layout = 'ring', page = 16 }}"
        );
        let ring = specs::parse(&text);
        let whole =
            Spec { cache: spec::Cache { layout: CacheLayout::Contiguous, ..ring.cache }, ..ring.clone() };
        for entry in engines::serving(Dtype::F32) {
            let kernels = [&ring, &whole].map(|spec| run::compile(spec, entry, Dtype::F32));
            let len = 900;
            let sizes = Sizes::new(&[len], len);
            let cases = [0, 1].map(|i| sizes.case(&kernels[i], 2));
            let inputs = cases[0].inputs();
            let limits = CacheLimits { at_once: 16, ..CacheLimits::new(1, len) };
            let mut filled = [0, 1].map(|i| {
                let mut cache = kernels[i].cache(limits).expect("small");
                let sequence = cache.open().expect("room for one");
                Filled { cache, sequences: vec![sequence] }
            });
            assert!(filled[0].cache.bytes() * 2 < filled[1].cache.bytes(), "a ring is smaller: {mask}");
            let mut dice = Dice(7);
            let mut tokens = 0;
            while tokens < len {
                // Some tokens, of which the last are taken back as often as not.
                let count = (1 + dice.below(16)).min(len - tokens);
                let back = if dice.below(2) == 0 { 0 } else { dice.below(count) };
                let outputs = [0, 1].map(|i| {
                    let at = (&mut filled[i].cache, filled[i].sequences[0]);
                    cached::append(&kernels[i], (&cases[i], &inputs), at, 0, tokens..tokens + count)
                        .expect("room");
                    filled[i]
                        .cache
                        .truncate(filled[i].sequences[0], tokens + count - back)
                        .expect("it has them");
                    let queries = count - back;
                    let end = tokens + queries;
                    let sizes = Sizes { cu_q: vec![0, queries as i32], cu_k: vec![0, end as i32] };
                    let case = sizes.case(&kernels[i], 2);
                    let inputs = regard_tests::with_queries(&case, &inputs, Dtype::F32, tokens..end);
                    let prefilled = cached::prefill(&kernels[i], &case, &inputs, &filled[i], &Solo)
                        .expect("a case is small");
                    let attended = attend(&kernels[i], &case, &inputs, &filled[i], &Solo);
                    [bits(&prefilled, 0, queries), bits(&attended, 0, queries)]
                });
                assert!(
                    outputs[0] == outputs[1],
                    "{mask} on {entry:?}: {count} tokens from {tokens}, {back} taken back"
                );
                tokens += count - back;
            }
            let sequence = filled[0].sequences[0];
            assert!(
                matches!(
                    filled[0].cache.truncate(sequence, 500),
                    Err(CacheError::Store(StoreError::Lost { .. }))
                ),
                "{mask}"
            );
            assert_eq!(filled[0].cache.len(sequence), Ok(len));
        }
    }
}

#[test]
fn rings_are_refused_where_keys_stay_in_sight() {
    let machine = regard::machine::host();
    for mask in
        ["causal", "all", "causal & k % 7 == 0", "causal & window(nk)", "causal & (window(9) | k % 64 == 0)"]
    {
        let text = format!("heads = {{ query = 2, dim = 8 }}\nmask = '{mask}'\ncache = 'ring'");
        let error = Kernel::compile(&specs::parse(&text), &machine).err().map(|error| error.to_string());
        assert!(error.is_some_and(|error| error.contains("`cache.layout` is `ring`")), "{mask}");
    }
}
