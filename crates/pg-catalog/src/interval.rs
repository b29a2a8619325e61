//! PostgreSQL's texts of intervals and times.

/// The date of a text that says a time or a zone after it (`2024-01-02 03:04:05+00`), which a DATE
/// leaves out; nothing for others.
pub fn date_before_time(text: &str) -> Option<&str> {
    let (date, rest) = text.trim().split_once(' ')?;
    let is_time = rest.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-'))
        && rest
            .chars()
            .all(|c| c.is_ascii_digit() || matches!(c, ':' | '.' | '+' | '-' | ' '));
    is_time.then_some(date)
}

/// A text with a time in it (`1 day 02:03:04.5`, `-00:10`) with that time in words, which every
/// reader of intervals takes; nothing if there is no time in it.
pub fn interval_text(text: &str) -> Option<String> {
    let mut words = Vec::new();
    let mut found = false;
    for word in text.split_whitespace() {
        if !word.contains(':') {
            words.push(word.to_owned());
            continue;
        }
        found = true;
        let (sign, clock) = match word.strip_prefix('-') {
            Some(rest) => ("-", rest),
            None => ("", word.trim_start_matches('+')),
        };
        let parts: Vec<&str> = clock.split(':').collect();
        let is_number =
            |part: &&str| !part.is_empty() && part.chars().all(|c| c.is_ascii_digit() || c == '.');
        if parts.len() > 3 || !parts.iter().all(is_number) {
            return None;
        }
        for (part, unit) in parts.iter().zip(["hours", "minutes", "seconds"]) {
            let trimmed = part.trim_start_matches('0');
            let number = if trimmed.is_empty() || trimmed.starts_with('.') {
                format!("0{trimmed}")
            } else {
                trimmed.to_owned()
            };
            if number.chars().any(|c| c.is_ascii_digit() && c != '0') {
                words.push(format!("{sign}{number} {unit}"));
            }
        }
        if words.is_empty() {
            words.push("0 seconds".to_owned());
        }
    }
    found.then(|| words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_said_in_words() {
        for (text, words) in [
            ("1 day 0:00:02", Some("1 day 2 seconds")),
            ("-01:30", Some("-1 hours -30 minutes")),
            ("00:00:00", Some("0 seconds")),
            ("2 mons 00:00:00.25", Some("2 mons 0.25 seconds")),
            ("1 day", None),
            ("a:b", None),
        ] {
            assert_eq!(interval_text(text).as_deref(), words, "{text}");
        }
    }
}
