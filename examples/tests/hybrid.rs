//! However a text reaches the model, the model has read the same.

use std::process::Command;

use regard_examples::hybrid::Model;

fn distance(a: &[f32], b: &[f32]) -> f32 {
    let largest = b.iter().fold(0f32, |most, x| most.max(x.abs()));
    a.iter().zip(b).fold(0f32, |most, (a, b)| most.max((a - b).abs())) / largest
}

#[test]
fn a_text_is_read_piece_by_piece_as_at_once() {
    let mut model = Model::new(4, (3, 200), 6).unwrap();
    let tokens: Vec<usize> = (0..150).map(|t| (t * 31 + t * t) % 256).collect();
    let (whole, pieces) = (model.open().unwrap(), model.open().unwrap());
    let expected = model.read(&whole, &tokens).unwrap();

    let mut found = model.read(&pieces, &tokens[..70]).unwrap();
    found.extend(model.read(&pieces, &tokens[70..71]).unwrap());
    // Five guesses, of which two are right, and another text that goes its own way.
    let guesses = [tokens[71], tokens[72], 1, 2, 3];
    let read = model.read(&pieces, &guesses).unwrap();
    found.extend(&read[..read.len() / 5 * 2]);
    model.truncate(&pieces, 73).unwrap();
    let other = model.fork(&pieces).unwrap();
    model.read(&other, &[9, 8, 7]).unwrap();
    found.extend(model.read(&pieces, &tokens[73..]).unwrap());

    assert_eq!(found.len(), expected.len());
    assert!(distance(&found, &expected) < 1e-4, "{}", distance(&found, &expected));
    assert!(model.truncate(&pieces, 60).is_err(), "states of so long ago are gone");
}

/// The program of the README.
#[test]
fn guesses_change_no_token() {
    let program = Command::new(env!("CARGO_BIN_EXE_hybrid")).output().unwrap();
    let said = String::from_utf8(program.stdout).unwrap();
    assert!(program.status.success() && said.ends_with("and the same text: true\n"), "{said}");
}

#[test]
fn states_do_not_grow_with_the_text() {
    let [short, long] = [100, 1000].map(|tokens| Model::new(4, (1, tokens), 1).unwrap().cache_bytes());
    assert_eq!(short[..3], long[..3]);
    assert!(short[3] < long[3]);
}
