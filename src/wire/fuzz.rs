//! What the fuzzer of the protocol runs: bytes as a client may send them.

use std::net::SocketAddr;

use bytes::BytesMut;
use datafusion::arrow::datatypes::{DataType, Field, IntervalUnit, TimeUnit};
use pgwire::api::{ClientInfo, DefaultClient, PgWireConnectionState};
use pgwire::messages::PgWireFrontendMessage;
use pgwire::tokio::server::PgWireMessageServerCodec;
use tokio_util::codec::Decoder;

use super::codec::Codec;
use super::params::decode_parameter;
use crate::statement::parse_one;

/// Reads bytes as start-up packets, as messages, and as values: nothing may panic, and no message
/// may be longer than the limit.
///
/// # Panics
/// When something does.
#[doc(hidden)]
pub fn check_bytes(bytes: &[u8]) {
    const LONGEST: usize = 1 << 16;
    for state in [
        PgWireConnectionState::AwaitingStartup,
        PgWireConnectionState::ReadyForQuery,
    ] {
        let client = DefaultClient::new(SocketAddr::from(([127, 0, 0, 1], 1)), false);
        let mut codec = Codec {
            inner: PgWireMessageServerCodec::new(client),
            bytes_max: LONGEST,
        };
        codec.inner.client_info.set_state(state);
        let mut buffer = BytesMut::from(bytes);
        while let Ok(Some(message)) = codec.decode(&mut buffer) {
            match message {
                PgWireFrontendMessage::Parse(parse) => drop(parse_one(&parse.query)),
                PgWireFrontendMessage::Query(query) => drop(parse_one(&query.query)),
                PgWireFrontendMessage::Startup(_) => codec
                    .inner
                    .client_info
                    .set_state(PgWireConnectionState::ReadyForQuery),
                _ => {}
            }
        }
    }
    let list = |item: DataType| DataType::List(Field::new_list_field(item, true).into());
    for data_type in [
        DataType::Boolean,
        DataType::Int16,
        DataType::Int32,
        DataType::Int64,
        DataType::UInt32,
        DataType::Float64,
        DataType::Decimal128(38, 10),
        DataType::Utf8,
        DataType::Binary,
        DataType::Date32,
        DataType::Time64(TimeUnit::Nanosecond),
        DataType::Timestamp(TimeUnit::Microsecond, None),
        DataType::Interval(IntervalUnit::MonthDayNano),
        list(DataType::Int64),
        list(DataType::Utf8),
        DataType::Timestamp(TimeUnit::Nanosecond, None),
        list(DataType::Time64(TimeUnit::Nanosecond)),
    ] {
        for format in [0, 1] {
            let _ = decode_parameter(bytes, format, &data_type);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            check_bytes(&bytes);
        }

        #[test]
        fn almost_messages_are_survived(
            kind in proptest::sample::select(b"QPBDECSHdcfpX".to_vec()),
            length in 0i32..40,
            body in proptest::collection::vec(proptest::num::u8::ANY, 0..60),
        ) {
            check_bytes(&[&[kind][..], &length.to_be_bytes(), &body].concat());
        }
    }
}
