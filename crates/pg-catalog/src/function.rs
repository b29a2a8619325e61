//! What a function is once its arguments' types are known, and the ways to make one.

use postgres_types::Type;
use starkeep_error::{Error, ErrorKind};

use super::context::Context;
use super::value::{Value, ValueType};

pub(super) type Call = Box<dyn Fn(&[Value], &Context) -> Result<Value, Error>>;

/// A function for arguments of certain types.
pub(super) struct Function {
    pub returns: ValueType,
    /// NULL for any NULL argument.
    pub strict: bool,
    pub call: Call,
}

/// A function that fails.
pub(super) fn fallible(
    returns: Type,
    call: impl Fn(&[Value], &Context) -> Result<Value, Error> + 'static,
) -> Option<Function> {
    Some(Function {
        returns: ValueType::of(returns),
        strict: true,
        call: Box::new(call),
    })
}

/// A function that answers NULL for NULL.
pub(super) fn strict(
    returns: Type,
    call: impl Fn(&[Value], &Context) -> Value + 'static,
) -> Option<Function> {
    fallible(returns, move |args, context| Ok(call(args, context)))
}

/// A function that looks at NULLs.
pub(super) fn lax(
    returns: ValueType,
    call: impl Fn(&[Value], &Context) -> Value + 'static,
) -> Option<Function> {
    Some(Function {
        returns,
        strict: false,
        call: Box::new(move |args, context| Ok(call(args, context))),
    })
}

/// A function that looks at NULLs and may fail.
pub(super) fn fallible_lax(
    returns: ValueType,
    call: impl Fn(&[Value], &Context) -> Result<Value, Error> + 'static,
) -> Option<Function> {
    Some(Function {
        returns,
        strict: false,
        call: Box::new(call),
    })
}

/// A number, also from a literal.
pub(super) fn int(value: &Value) -> Result<i64, Error> {
    match value {
        Value::Text(text) => text.trim().parse().map_err(|_| {
            Error::new(
                ErrorKind::InvalidText,
                format!("invalid input syntax for type integer: \"{text}\""),
            )
        }),
        other => Ok(other.as_int().unwrap_or(0)),
    }
}
