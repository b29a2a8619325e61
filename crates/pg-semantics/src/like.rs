//! SIMILAR TO's patterns as regular expressions.

use starkeep_error::{Error, ErrorKind};

/// A pattern of SIMILAR TO as a regular expression over the whole text.
pub fn similar_to(pattern: &str, escape: Option<char>) -> Result<String, Error> {
    let mut out = String::from("^(?:");
    let mut chars = pattern.chars().peekable();
    let mut in_class = false;
    while let Some(c) = chars.next() {
        if Some(c) == escape {
            let Some(next) = chars.next() else {
                return Err(Error::new(
                    ErrorKind::InvalidEscape,
                    "invalid escape sequence",
                ));
            };
            if !next.is_alphanumeric() {
                out.push('\\');
            }
            out.push(next);
            continue;
        }
        if in_class {
            match c {
                ']' => in_class = false,
                '\\' => out.push('\\'),
                _ => {}
            }
            out.push(c);
            continue;
        }
        match c {
            '%' => out.push_str(".*"),
            '_' => out.push('.'),
            '[' => {
                in_class = true;
                out.push('[');
                if chars.next_if_eq(&'^').is_some() {
                    out.push('^');
                }
                // The first bracket in brackets is one of them.
                if chars.next_if_eq(&']').is_some() {
                    out.push_str("\\]");
                }
            }
            '(' => out.push_str("(?:"),
            '.' | '^' | '$' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            _ => out.push(c),
        }
    }
    if in_class {
        return Err(Error::new(
            ErrorKind::InvalidRegex,
            "invalid regular expression: brackets [] not balanced",
        ));
    }
    out.push_str(")$");
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_of_the_whole_text() {
        for (pattern, expected) in [
            ("(a|H)%", "^(?:(?:a|H).*)$"),
            ("a_c", "^(?:a.c)$"),
            ("a.c", "^(?:a\\.c)$"),
            ("[a-c]+\\%", "^(?:[a-c]+\\%)$"),
            ("x{2,3}", "^(?:x{2,3})$"),
        ] {
            assert_eq!(similar_to(pattern, Some('\\')).expect(pattern), expected);
        }
        assert!(similar_to("a\\", Some('\\')).is_err());
    }
}
