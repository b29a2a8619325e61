//! PostgreSQL's array literals, `{a,"b c",NULL}`.

/// The items of a one-dimensional array literal, NULLs as `None`; nothing if it is malformed.
pub fn array_items(text: &str) -> Option<Vec<Option<String>>> {
    let inner = text.trim().strip_prefix('{')?.strip_suffix('}')?;
    let mut items = Vec::new();
    if inner.trim().is_empty() {
        return Some(items);
    }
    let mut chars = inner.chars();
    let (mut item, mut quoted) = (String::new(), false);
    while let Some(c) = chars.next() {
        match c {
            // Blanks around quotes are no part of the item.
            c if c.is_whitespace() && quoted => {}
            '"' => {
                if item.trim().is_empty() {
                    item.clear();
                }
                quoted = true;
                loop {
                    match chars.next()? {
                        '"' => break,
                        '\\' => item.push(chars.next()?),
                        c => item.push(c),
                    }
                }
            }
            ',' => {
                items.push(finished(std::mem::take(&mut item), quoted));
                quoted = false;
            }
            '{' | '}' => return None,
            '\\' => item.push(chars.next()?),
            c => item.push(c),
        }
    }
    items.push(finished(item, quoted));
    Some(items)
}

fn finished(item: String, quoted: bool) -> Option<String> {
    if quoted {
        return Some(item);
    }
    let item = item.trim();
    (!item.eq_ignore_ascii_case("null")).then(|| item.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_told_apart() {
        assert_eq!(
            array_items("{a,\"b \\\"c\",NULL,\"NULL\", d }"),
            Some(vec![
                Some("a".into()),
                Some("b \"c".into()),
                None,
                Some("NULL".into()),
                Some("d".into())
            ])
        );
        assert_eq!(
            array_items("{\"a\", \" b\" , c}"),
            Some(vec![Some("a".into()), Some(" b".into()), Some("c".into())])
        );
        assert_eq!(array_items("{}"), Some(vec![]));
        assert_eq!(array_items("{\"a"), None);
    }
}
