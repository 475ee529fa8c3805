//! Lets a hybrid model read a prompt, go on by itself, and check guesses.
#![forbid(unsafe_code)]

use std::error::Error;
use std::time::Instant;

use regard_examples::hybrid::{Model, TOKENS};

/// Tokens that are guessed and then read in one call.
const DRAFTS: usize = 4;

fn main() -> Result<(), Box<dyn Error>> {
    let (prompt, answer) = (512, 200);
    let mut model = Model::new(8, (2, 1024), DRAFTS)?;
    for (layer, bytes) in (1..).zip(model.cache_bytes()) {
        let kept = if layer % 4 == 0 { "keys and values" } else { "states" };
        println!("layer {layer}: {:5.0} KiB of {kept}", bytes as f64 / 1024.0);
    }

    let text = model.open()?;
    let prompt: Vec<usize> = (0..prompt).map(|t| t * t % 251).collect();
    let start = Instant::now();
    let mut next = likeliest(last(&model.read(&text, &prompt)?));
    println!("a prompt of {} tokens: {:.1} ms", prompt.len(), 1e3 * start.elapsed().as_secs_f64());

    // A copy of all layers, as a prompt that another answer begins with too.
    let other = model.fork(&text)?;
    let start = Instant::now();
    let mut said = Vec::new();
    for _ in 0..answer {
        said.push(next);
        next = likeliest(last(&model.read(&text, &[next])?));
    }
    println!("{answer} tokens one by one: {:.1} ms", 1e3 * start.elapsed().as_secs_f64());

    // Guesses, of which every third is wrong, in calls of several tokens: what was wrong is taken back in all layers.
    let start = Instant::now();
    let (mut found, mut calls) = (vec![said[0]], 0);
    while found.len() < answer {
        let from = found.len() - 1;
        let guesses =
            (from + 1..from + DRAFTS).map(|at| if at % 3 == 0 { 0 } else { said[at.min(answer - 1)] });
        let tokens: Vec<usize> = found.last().copied().into_iter().chain(guesses).collect();
        let likely = model.read(&other, &tokens)?;
        let likely: Vec<usize> = likely.chunks_exact(TOKENS).map(likeliest).collect();
        let right = tokens[1..].iter().zip(&likely).take_while(|(guess, likely)| guess == likely).count();
        found.extend(&likely[..=right]);
        model.truncate(&other, prompt.len() + from + 1 + right)?;
        calls += 1;
    }
    println!("the same by {calls} calls of {DRAFTS}: {:.1} ms", 1e3 * start.elapsed().as_secs_f64());
    println!("and the same text: {}", found[..answer] == said);
    Ok(())
}

/// What is said of the last token.
fn last(likely: &[f32]) -> &[f32] {
    &likely[likely.len() - TOKENS..]
}

fn likeliest(next: &[f32]) -> usize {
    (0..next.len()).max_by(|&a, &b| next[a].total_cmp(&next[b])).unwrap_or(0)
}
