//! A tiktoken vocabulary file as the vocabulary and merges of a byte-level BPE.
//!
//! tiktoken merges, of all neighbours in a word whose joined bytes are a token, those of the lowest rank, the leftmost first. A
//! BPE with one merge for each token does the same: when a token's rank is the lowest left, everything below it has been
//! merged, so its two parts are always the ones that the same procedure leaves of the token alone. A token of which it leaves
//! more than two parts is no merge's result: both find it only as a whole word (`ignore_merges`).

use std::collections::HashMap;
use std::path::Path;

use crate::failure::{Failure, Result};

/// Longer tokens than any vocabulary has; it bounds the work of `merges`.
const MAX_TOKEN_BYTES: usize = 4096;

/// The tokens by rank, from lines of `base64 rank`. Ranks must be 0, 1, 2, ... in any order, and every single byte a token:
/// otherwise a text could lose bytes.
pub fn read_tokens(file: &[u8], path: &Path) -> Result<Vec<Vec<u8>>> {
    let mut ranks: HashMap<Vec<u8>, usize> = HashMap::new();
    for (index, line) in file.split(|&byte| byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            continue;
        }
        let bad = |reason: &str| Failure::bad_file("bad tiktoken file", path, format!("{reason} line={}", index + 1));
        let (token, rank) = parse_line(line).ok_or_else(|| bad("want a token in base64, a space and its rank"))?;
        if token.is_empty() || token.len() > MAX_TOKEN_BYTES {
            return Err(bad(&format!("a token has 1 to {MAX_TOKEN_BYTES} bytes: got={}", token.len())));
        }
        if ranks.insert(token, rank).is_some() {
            return Err(bad("the token is there twice"));
        }
    }
    if let Some(byte) = (0..=u8::MAX).find(|&byte| !ranks.contains_key(&[byte][..])) {
        return Err(Failure::bad_file("bad tiktoken file", path, format!("a single byte has no token: byte={byte}")));
    }
    let mut tokens = vec![Vec::new(); ranks.len()];
    for (token, rank) in ranks {
        match tokens.get_mut(rank) {
            Some(place) if place.is_empty() => *place = token,
            _ => {
                let reason = format!("ranks must be 0 to {}, each once: rank={rank}", tokens.len() - 1);
                return Err(Failure::bad_file("bad tiktoken file", path, reason));
            }
        }
    }
    Ok(tokens)
}

fn parse_line(line: &[u8]) -> Option<(Vec<u8>, usize)> {
    let space = line.iter().position(|&byte| byte == b' ')?;
    let token = base64::decode(&line[..space]).ok()?;
    let rank = std::str::from_utf8(&line[space + 1..]).ok()?.parse().ok()?;
    Some((token, rank))
}

/// For each token that a merge makes, in the order of ranks, its left and its right part.
pub fn merges(tokens: &[Vec<u8>]) -> Vec<(&[u8], &[u8])> {
    let ranks: HashMap<&[u8], usize> = tokens.iter().enumerate().map(|(rank, token)| (token.as_slice(), rank)).collect();
    tokens
        .iter()
        .enumerate()
        .filter(|(_, token)| token.len() > 1)
        .filter_map(|(rank, token)| match parts_below(token, rank, &ranks)[..] {
            [0, middle, _] => Some(token.split_at(middle)),
            _ => None,
        })
        .collect()
}

/// Where the parts of `token` begin, and its end, after all merges of ranks below `limit`.
fn parts_below(token: &[u8], limit: usize, ranks: &HashMap<&[u8], usize>) -> Vec<usize> {
    let mut bounds: Vec<usize> = (0..=token.len()).collect();
    // Of the part that begins at bounds[i] joined with the next: only the two beside a merge change.
    let joined_rank = |bounds: &[usize], i: usize| match bounds.get(i + 2) {
        Some(&end) => ranks.get(&token[bounds[i]..end]).copied().filter(|&rank| rank < limit).unwrap_or(usize::MAX),
        None => usize::MAX,
    };
    let mut joined: Vec<usize> = (0..token.len()).map(|i| joined_rank(&bounds, i)).collect();
    while let Some((i, _)) = joined.iter().enumerate().min_by_key(|(_, rank)| **rank).filter(|(_, rank)| **rank != usize::MAX) {
        bounds.remove(i + 1);
        joined.remove(i + 1);
        joined[i] = joined_rank(&bounds, i);
        if i > 0 {
            joined[i - 1] = joined_rank(&bounds, i - 1);
        }
    }
    bounds
}

/// The characters that stand for bytes in a byte-level vocabulary: printable ones for themselves, the others from U+0100 on.
pub fn byte_level_text(bytes: &[u8], alphabet: &[char; 256]) -> String {
    bytes.iter().map(|&byte| alphabet[usize::from(byte)]).collect()
}

pub fn byte_level_alphabet() -> [char; 256] {
    let mut others = '\u{100}'..;
    std::array::from_fn(|byte| match byte as u8 {
        byte @ (b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff) => char::from(byte),
        _ => others.next().unwrap_or_default(),
    })
}
