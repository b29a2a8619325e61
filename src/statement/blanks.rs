//! Which characters make words in StarRocks, and where blanks and comments end.

pub(super) fn starts_word(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_' || c == '$' || ('\u{80}'..='\u{ffff}').contains(&c)
}

pub(super) fn continues_word(c: char) -> bool {
    c.is_ascii_digit() || starts_word(c)
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n' | '\u{c}' | '\u{3000}')
}

/// Where the comment or blanks that begin at `at` end, or `at` if there are none. An unclosed block
/// comment runs to the end. U+3000 is a blank and a letter: the longer reading wins, as in
/// StarRocks, so `\u{3000}t` is a word.
pub(super) fn skip_blank(text: &str, at: usize) -> usize {
    let rest = &text[at..];
    if rest.starts_with("--") {
        return rest.find('\n').map_or(text.len(), |n| at + n + 1);
    }
    if let Some(body) = rest.strip_prefix("/*") {
        return body.find("*/").map_or(text.len(), |n| at + 2 + n + 2);
    }
    let run = |takes: fn(char) -> bool| rest.find(|c| !takes(c)).unwrap_or(rest.len());
    let blanks = run(is_space);
    let is_word = rest.starts_with('\u{3000}') && run(continues_word) > blanks;
    if is_word { at } else { at + blanks }
}
