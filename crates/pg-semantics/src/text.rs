//! Names and texts as SQL writes them, and `format`.

use starkeep_error::{Error, ErrorKind};

/// A name as SQL takes it: in quotes where it must be.
pub fn quote_ident(name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        && !RESERVED.contains(&name);
    if plain {
        name.to_owned()
    } else {
        format!("\"{}\"", name.replace('"', "\"\""))
    }
}

/// PostgreSQL's words that stand for themselves only in quotes.
const RESERVED: &[&str] = &[
    "all",
    "analyse",
    "analyze",
    "and",
    "any",
    "array",
    "as",
    "asc",
    "asymmetric",
    "authorization",
    "between",
    "bigint",
    "binary",
    "bit",
    "boolean",
    "both",
    "case",
    "cast",
    "char",
    "character",
    "check",
    "coalesce",
    "collate",
    "collation",
    "column",
    "concurrently",
    "constraint",
    "create",
    "cross",
    "current_catalog",
    "current_date",
    "current_role",
    "current_schema",
    "current_time",
    "current_timestamp",
    "current_user",
    "dec",
    "decimal",
    "default",
    "deferrable",
    "desc",
    "distinct",
    "do",
    "else",
    "end",
    "except",
    "exists",
    "extract",
    "false",
    "fetch",
    "float",
    "for",
    "foreign",
    "freeze",
    "from",
    "full",
    "grant",
    "greatest",
    "group",
    "grouping",
    "having",
    "ilike",
    "in",
    "initially",
    "inner",
    "inout",
    "int",
    "integer",
    "intersect",
    "interval",
    "into",
    "is",
    "isnull",
    "join",
    "lateral",
    "leading",
    "least",
    "left",
    "like",
    "limit",
    "localtime",
    "localtimestamp",
    "national",
    "natural",
    "nchar",
    "none",
    "normalize",
    "not",
    "notnull",
    "null",
    "nullif",
    "numeric",
    "offset",
    "on",
    "only",
    "or",
    "order",
    "out",
    "outer",
    "overlaps",
    "overlay",
    "placing",
    "position",
    "precision",
    "primary",
    "real",
    "references",
    "returning",
    "right",
    "row",
    "select",
    "session_user",
    "setof",
    "similar",
    "smallint",
    "some",
    "substring",
    "symmetric",
    "table",
    "tablesample",
    "then",
    "time",
    "timestamp",
    "to",
    "trailing",
    "treat",
    "trim",
    "true",
    "union",
    "unique",
    "user",
    "using",
    "values",
    "varchar",
    "variadic",
    "verbose",
    "when",
    "where",
    "window",
    "with",
    "xmlattributes",
    "xmlconcat",
    "xmlelement",
    "xmlexists",
    "xmlforest",
    "xmlnamespaces",
    "xmlparse",
    "xmlpi",
    "xmlroot",
    "xmlserialize",
    "xmltable",
];

/// The parts of a dotted name; bare ones are folded to lower case.
pub fn identifiers(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut chars = text.trim().chars().peekable();
    let mut quoted = false;
    while let Some(c) = chars.next() {
        let part = parts.last_mut().expect("there is always one");
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                part.push('"');
            }
            '"' => quoted = !quoted,
            '.' if !quoted => parts.push(String::new()),
            c if quoted => part.push(c),
            c if c.is_whitespace() => {}
            c => part.extend(c.to_lowercase()),
        }
    }
    parts
}

/// `'…'`, as SQL takes it.
pub fn quote_literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if text.contains('\\') {
        format!("E'{}'", quoted.replace('\\', "\\\\"))
    } else {
        format!("'{quoted}'")
    }
}

/// One `%…` of a pattern of `format`.
struct Place {
    /// The argument that it names, from 1.
    argument: Option<usize>,
    width: Width,
    fills_right: bool,
    kind: char,
}

enum Width {
    None,
    Fixed(i64),
    /// That of the next argument, or of one by its number.
    OfArgument(Option<usize>),
}

fn bad(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidParameter, message)
}

fn unterminated() -> Error {
    bad("unterminated format() type specifier").hint("For a single \"%\" use \"%%\".")
}

type Chars<'p> = std::iter::Peekable<std::str::Chars<'p>>;

fn digits(chars: &mut Chars<'_>) -> Result<Option<usize>, Error> {
    let mut digits = String::new();
    while let Some(digit) = chars.next_if(char::is_ascii_digit) {
        digits.push(digit);
    }
    if digits.is_empty() {
        return Ok(None);
    }
    let number: i32 = digits
        .parse()
        .map_err(|_| Error::new(ErrorKind::OutOfRange, "number is out of range"))?;
    Ok(usize::try_from(number).ok())
}

fn numbered(argument: usize) -> Result<Option<usize>, Error> {
    match argument {
        0 => Err(bad(
            "format specifies argument 0, but arguments are numbered from 1",
        )),
        n => Ok(Some(n)),
    }
}

impl Place {
    /// What stands after a `%`.
    fn parse(chars: &mut Chars<'_>) -> Result<Self, Error> {
        let mut place = Self {
            argument: None,
            width: Width::None,
            fills_right: false,
            kind: '%',
        };
        let number = digits(chars)?;
        match number {
            Some(n) if chars.next_if_eq(&'$').is_some() => place.argument = numbered(n)?,
            Some(n) => place.width = Width::Fixed(n as i64),
            None => {}
        }
        if matches!(place.width, Width::None) {
            while chars.next_if_eq(&'-').is_some() {
                place.fills_right = true;
            }
            if chars.next_if_eq(&'*').is_some() {
                let of = digits(chars)?;
                let of = match of {
                    Some(n) if chars.next_if_eq(&'$').is_some() => numbered(n)?,
                    Some(_) => {
                        return Err(bad("width argument position must be ended by \"$\""));
                    }
                    None => None,
                };
                place.width = Width::OfArgument(of);
            } else if let Some(n) = digits(chars)? {
                place.width = Width::Fixed(n as i64);
            }
        }
        place.kind = chars.next().ok_or_else(unterminated)?;
        Ok(place)
    }
}

/// `format('%I.%L %s', …)`, of arguments as they are shown, where one is not NULL. The length is
/// checked before the text grows.
pub fn format(
    pattern: &str,
    args: &[Option<String>],
    check: impl Fn(usize) -> Result<(), Error>,
) -> Result<String, Error> {
    let mut out = String::new();
    let mut next = 1;
    let mut chars = pattern.chars().peekable();
    let mut take = |named: Option<usize>| {
        let at = named.unwrap_or(next);
        next = at + 1;
        args.get(at - 1)
            .ok_or_else(|| bad("too few arguments for format()"))
    };
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        if chars.next_if_eq(&'%').is_some() {
            out.push('%');
            continue;
        }
        let place = Place::parse(&mut chars)?;
        let mut fills_right = place.fills_right;
        let width = match place.width {
            Width::None => 0,
            Width::Fixed(width) => width,
            Width::OfArgument(named) => match take(named)? {
                Some(text) => i64::from(text.trim().parse::<i32>().map_err(|_| {
                    Error::new(
                        ErrorKind::InvalidText,
                        format!("invalid input syntax for type integer: \"{text}\""),
                    )
                })?),
                None => 0,
            },
        };
        fills_right |= width < 0;
        let width = usize::try_from(width.unsigned_abs()).unwrap_or(usize::MAX);
        if !matches!(place.kind, 's' | 'I' | 'L') {
            return Err(bad(format!(
                "unrecognized format() type specifier \"{}\"",
                place.kind
            ))
            .hint("For a single \"%\" use \"%%\"."));
        }
        let value = take(place.argument)?;
        check(out.len() + value.as_ref().map_or(0, String::len).max(width))?;
        let shown = match (place.kind, value) {
            ('s', value) => value.clone().unwrap_or_default(),
            ('I', Some(name)) => quote_ident(name),
            ('I', None) => {
                let message = "null values cannot be formatted as an SQL identifier";
                return Err(Error::new(ErrorKind::NullNotAllowed, message));
            }
            (_, Some(text)) => quote_literal(text),
            (_, None) => "NULL".to_owned(),
        };
        let spaces = " ".repeat(width.saturating_sub(shown.chars().count()));
        if fills_right {
            out.push_str(&shown);
            out.push_str(&spaces);
        } else {
            out.push_str(&spaces);
            out.push_str(&shown);
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_texts_are_quoted_where_they_must_be() {
        assert_eq!(quote_ident("orders"), "orders");
        assert_eq!(quote_ident("Or\"ders"), "\"Or\"\"ders\"");
        assert_eq!(quote_ident("select"), "\"select\"");
        assert_eq!(quote_literal("it's \\"), "E'it''s \\\\'");
    }

    #[test]
    fn patterns_are_filled_in() {
        let args = [Some("My table".to_owned()), None, Some("-4".to_owned())];
        let filled = |pattern: &str| format(pattern, &args, |_| Ok(()));
        for (pattern, text) in [
            ("%I %L 100%% %1$s", "\"My table\" NULL 100% My table"),
            ("[%10s] [%-10s] [%s]", "[  My table] [          ] [-4]"),
            ("[%3$*3$s]", "[-4  ]"),
            ("[%1$2s]", "[My table]"),
        ] {
            assert_eq!(filled(pattern).expect(pattern), text);
        }
        for (pattern, kind) in [
            ("%2$I", ErrorKind::NullNotAllowed),
            ("%s %s %s %s", ErrorKind::InvalidParameter),
            ("%", ErrorKind::InvalidParameter),
            ("%d", ErrorKind::InvalidParameter),
            ("%0$s", ErrorKind::InvalidParameter),
            ("%99999999999s", ErrorKind::OutOfRange),
        ] {
            assert_eq!(filled(pattern).expect_err(pattern).kind, kind, "{pattern}");
        }
    }
}
