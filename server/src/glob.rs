//! Patterns with stars and question marks, of CONFIG GET and of the rules of users.

/// Matches a pattern: `*` for any bytes, `?` for one. After a mismatch only the last star is tried
/// again, so the time is at most proportional to the product of the lengths.
pub fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut position) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while position < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at + 1, position));
                at += 1;
            }
            Some(byte) if *byte == b'?' || *byte == name[position] => {
                at += 1;
                position += 1;
            }
            _ => {
                let Some((behind, tried)) = star else { return false };
                star = Some((behind, tried + 1));
                at = behind;
                position = tried + 1;
            }
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_with_stars_and_question_marks() {
        for (pattern, name) in [
            ("*", "save"),
            ("save", "save"),
            ("s?ve", "save"),
            ("*a*e", "save"),
            ("max*", "maxclients"),
        ] {
            assert!(matches(pattern.as_bytes(), name.as_bytes()), "{pattern} {name}");
        }
        for (pattern, name) in
            [("", "save"), ("sav", "save"), ("s?", "save"), ("*x*", "save"), ("saves", "save")]
        {
            assert!(!matches(pattern.as_bytes(), name.as_bytes()), "{pattern} {name}");
        }
    }
}
