//! The patterns of `to_char` for numbers.

use starkeep_error::{Error, ErrorKind};

/// Where the sign goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sign {
    /// Just before the first digit, where there is room for it.
    Before,
    /// `S` at the beginning or the end.
    Anchored { first: bool },
    /// `PR`: in angle brackets.
    Brackets,
    /// `MI`, `PL`, `SG` stand where they stand.
    InPlace,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    /// A digit; whether a zero is written where there is none.
    Digit(bool),
    Group,
    Point,
    Minus,
    Plus,
    Both,
    /// `th` in this case.
    Ordinal(bool),
    Literal(String),
}

/// A pattern that was read.
#[derive(Clone, Debug)]
pub struct NumberPattern {
    pieces: Vec<Piece>,
    sign: Sign,
    fill: bool,
    /// Digits before and after the point.
    whole: usize,
    fraction: usize,
}

impl NumberPattern {
    pub fn parse(pattern: &str) -> Result<Self, Error> {
        let mut read = Self {
            pieces: Vec::new(),
            sign: Sign::Before,
            fill: true,
            whole: 0,
            fraction: 0,
        };
        let mut rest = pattern;
        let mut has_point = false;
        while let Some(c) = rest.chars().next() {
            let begins = |word: &str| {
                rest.get(..word.len())
                    .is_some_and(|r| r.eq_ignore_ascii_case(word))
            };
            if let Some(quoted) = rest.strip_prefix('"') {
                let end = quoted.find('"').unwrap_or(quoted.len());
                read.pieces.push(Piece::Literal(quoted[..end].to_owned()));
                rest = quoted.get(end + 1..).unwrap_or("");
                continue;
            }
            let two = [
                ("FM", None),
                ("MI", Some(Piece::Minus)),
                ("PL", Some(Piece::Plus)),
                ("SG", Some(Piece::Both)),
                ("PR", None),
                ("TH", Some(Piece::Ordinal(rest.starts_with("TH")))),
                ("RN", None),
                ("EEEE", None),
            ];
            if let Some((word, piece)) = two.into_iter().find(|(word, _)| begins(word)) {
                match (word, piece) {
                    (_, Some(Piece::Ordinal(upper))) => read.pieces.push(Piece::Ordinal(upper)),
                    (_, Some(piece)) => {
                        read.sign = Sign::InPlace;
                        read.pieces.push(piece);
                    }
                    ("FM", _) => read.fill = false,
                    ("PR", _) => read.sign = Sign::Brackets,
                    _ => {
                        return Err(Error::unsupported(format_args!(
                            "{word} in to_char of a number"
                        )));
                    }
                }
                rest = &rest[word.len()..];
                continue;
            }
            match c {
                '0' | '9' => {
                    read.pieces.push(Piece::Digit(c == '0'));
                    if has_point {
                        read.fraction += 1
                    } else {
                        read.whole += 1
                    }
                }
                '.' | 'D' | 'd' => {
                    if std::mem::replace(&mut has_point, true) {
                        return Err(Error::new(ErrorKind::Syntax, "multiple decimal points"));
                    }
                    read.pieces.push(Piece::Point);
                }
                ',' | 'G' | 'g' => read.pieces.push(Piece::Group),
                'S' | 's' => {
                    let first = read.whole == 0;
                    read.sign = Sign::Anchored { first };
                }
                'L' | 'l' => read.pieces.push(Piece::Literal(" ".to_owned())),
                'V' | 'v' => return Err(Error::unsupported("V in to_char of a number")),
                other => read.pieces.push(Piece::Literal(other.to_string())),
            }
            rest = &rest[c.len_utf8()..];
        }
        Ok(read)
    }

    /// How many digits after the point are written: what the number is to be rounded to.
    pub fn fraction_digits(&self) -> usize {
        self.fraction
    }

    /// Writes a number that is rounded already: its digits before and after the point.
    pub fn write(&self, is_negative: bool, whole: &str, fraction: &str) -> String {
        let whole = whole.trim_start_matches('0');
        let overflows = whole.len() > self.whole;
        let is_zero = whole.is_empty() && fraction.bytes().all(|b| b == b'0');
        let is_negative = is_negative && !is_zero;
        // Zeros are written from the first 0 of the pattern on.
        let mut positions = self.pieces.iter().take_while(|p| **p != Piece::Point);
        let is_digit = |p: &&Piece| matches!(p, Piece::Digit(_));
        let digits = positions.by_ref().filter(is_digit).collect::<Vec<_>>();
        let zeros_from = digits.iter().position(|p| **p == Piece::Digit(true));
        let mut shown: Vec<Option<char>> = Vec::with_capacity(self.whole);
        let missing = self.whole.saturating_sub(whole.len());
        for i in 0..self.whole {
            shown.push(if overflows {
                Some('#')
            } else if i >= missing {
                whole.chars().nth(i - missing)
            } else if zeros_from.is_some_and(|from| i >= from) {
                Some('0')
            } else {
                None
            });
        }
        // A zero that would leave nothing at all is written.
        let has_no_fraction = self.fraction == 0
            || !self.fill && self.wanted_fraction() == 0 && fraction.bytes().all(|b| b == b'0');
        if has_no_fraction && self.whole > 0 && shown.iter().all(Option::is_none) {
            shown[self.whole - 1] = Some('0');
        }
        let kept = if self.fill {
            self.fraction
        } else {
            // Zeros at the end go, but not where the pattern wants them.
            let wanted = self.wanted_fraction();
            fraction.trim_end_matches('0').len().max(wanted)
        };
        let sign = if is_negative { '-' } else { '+' };
        let mut out = String::new();
        let mut is_signed = self.sign != Sign::Before && self.sign != Sign::Brackets;
        if let Sign::Anchored { first: true } = self.sign {
            is_signed = false;
        }
        let (mut n, mut after) = (0, 0);
        let mut in_fraction = false;
        let mark = |sign_of: Sign| match sign_of {
            Sign::Before => is_negative.then_some('-'),
            Sign::Brackets => is_negative.then_some('<'),
            Sign::Anchored { first: true } => Some(sign),
            _ => None,
        };
        let begin = |out: &mut String, is_signed: &mut bool| {
            if !std::mem::replace(is_signed, true) {
                match mark(self.sign) {
                    Some(mark) => out.push(mark),
                    None if self.fill => out.push(' '),
                    None => {}
                }
            }
        };
        for piece in &self.pieces {
            match piece {
                Piece::Digit(_) if in_fraction => {
                    if after < kept {
                        let digit = fraction.chars().nth(after).unwrap_or('0');
                        out.push(if overflows { '#' } else { digit });
                    }
                    after += 1;
                }
                Piece::Digit(_) => {
                    match shown[n] {
                        Some(digit) => {
                            begin(&mut out, &mut is_signed);
                            out.push(digit);
                        }
                        None if self.fill => out.push(' '),
                        None => {}
                    }
                    n += 1;
                }
                Piece::Group if in_fraction => {}
                Piece::Group => {
                    let has_begun = shown[..n].iter().any(Option::is_some);
                    match (has_begun, self.fill) {
                        (true, _) => out.push(','),
                        (false, true) => out.push(' '),
                        (false, false) => {}
                    }
                }
                Piece::Point => {
                    begin(&mut out, &mut is_signed);
                    out.push('.');
                    in_fraction = true;
                }
                Piece::Minus => match (is_negative, self.fill) {
                    (true, _) => out.push('-'),
                    (false, true) => out.push(' '),
                    (false, false) => {}
                },
                Piece::Plus => match (is_negative, self.fill) {
                    (false, _) => out.push('+'),
                    (true, true) => out.push(' '),
                    (true, false) => {}
                },
                Piece::Both => out.push(sign),
                Piece::Ordinal(upper) => {
                    let last: i64 = whole
                        .chars()
                        .rev()
                        .take(2)
                        .collect::<String>()
                        .chars()
                        .rev()
                        .collect::<String>()
                        .parse()
                        .unwrap_or(0);
                    let suffix = match (last, last % 10) {
                        (11..=13, _) => "th",
                        (_, 1) => "st",
                        (_, 2) => "nd",
                        (_, 3) => "rd",
                        _ => "th",
                    };
                    if !is_negative {
                        out.push_str(&if *upper {
                            suffix.to_ascii_uppercase()
                        } else {
                            suffix.to_owned()
                        });
                    }
                }
                Piece::Literal(text) => out.push_str(text),
            }
        }
        match self.sign {
            Sign::Anchored { first: false } => out.push(sign),
            Sign::Brackets if is_negative => out.push('>'),
            Sign::Brackets if self.fill => out.push(' '),
            _ => {}
        }
        out
    }

    /// Digits after the point that are written even if they are zeros at the end.
    fn wanted_fraction(&self) -> usize {
        let after = self.pieces.iter().skip_while(|p| **p != Piece::Point);
        let digits = after.filter(|p| matches!(p, Piece::Digit(_)));
        let last_zero = digits
            .enumerate()
            .filter(|(_, p)| **p == Piece::Digit(true))
            .last();
        last_zero.map_or(0, |(i, _)| i + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(value: &str, pattern: &str) -> String {
        let (negative, rest) = match value.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, value),
        };
        let (whole, fraction) = rest.split_once('.').unwrap_or((rest, ""));
        NumberPattern::parse(pattern)
            .expect("reads")
            .write(negative, whole, fraction)
    }

    #[test]
    fn numbers_are_written_by_patterns() {
        // As the manual of PostgreSQL 15 has them.
        for (value, pattern, expected) in [
            ("-0.10", "99.99", "  -.10"),
            ("-0.10", "FM9.99", "-.1"),
            ("0.1", "0.9", " 0.1"),
            ("12.0", "9990999.9", "    0012.0"),
            ("12.0", "FM9990999.9", "0012."),
            ("485", "999", " 485"),
            ("-485", "999", "-485"),
            ("1485", "9,999", " 1,485"),
            ("485", "9,999", "   485"),
            ("148.500", "999.999", " 148.500"),
            ("148.500", "FM999.999", "148.5"),
            ("148.500", "FM999.990", "148.500"),
            ("3148.50", "9,999.99", " 3,148.50"),
            ("-485", "999S", "485-"),
            ("-485", "999MI", "485-"),
            ("485", "999MI", "485 "),
            ("485", "FM999MI", "485"),
            ("485", "PL999", "+485"),
            ("485", "SG999", "+485"),
            ("-485", "SG999", "-485"),
            ("-485", "9SG99", "4-85"),
            ("-485", "999PR", "<485>"),
            ("485", "999TH", " 485TH"),
            ("482", "999th", " 482nd"),
            ("485", "\"Good number:\"999", "Good number: 485"),
            ("12345", "999", " ###"),
            ("0", "999", "   0"),
            ("0.00", "FM99.99", "0."),
            ("7", "00", " 07"),
            ("1234567", "FM999,999,999", "1,234,567"),
        ] {
            assert_eq!(written(value, pattern), expected, "{value} {pattern}");
        }
        assert!(NumberPattern::parse("9.9EEEE").is_err());
    }
}
