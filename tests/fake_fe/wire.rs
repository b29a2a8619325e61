//! The server side of the MySQL protocol, as much of it as a StarRocks frontend speaks: handshake,
//! text queries, TLS.

use std::sync::Arc;

use mysql_common::constants::{CapabilityFlags, StatusFlags};
use mysql_common::io::ParseBuf;
use mysql_common::packets::{HandshakePacket, HandshakeResponse};
use mysql_common::proto::MySerialize;
use mysql_common::scramble::scramble_native;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

/// What a frontend answers.
#[derive(Clone, Debug)]
pub enum Reply {
    Ok {
        affected: u64,
    },
    Rows {
        columns: Vec<Column>,
        rows: Vec<Vec<Option<String>>>,
    },
    Error {
        code: u16,
        sqlstate: String,
        message: String,
    },
}

/// A column as MySQL's protocol describes it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Column {
    pub name: String,
    #[serde(rename = "type")]
    pub mysql_type: String,
    pub length: u32,
    pub decimals: u8,
    pub charset: u16,
    pub flags: u16,
}

impl From<&str> for Column {
    /// A text, as most columns of SHOW are.
    fn from(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            mysql_type: "VAR_STRING".into(),
            length: 90,
            decimals: 0,
            charset: 33,
            flags: 0,
        }
    }
}

impl Column {
    pub fn text(name: &str, length: u32) -> Self {
        Self {
            length,
            ..name.into()
        }
    }

    pub fn number(name: &str, mysql_type: &str, length: u32) -> Self {
        Self {
            mysql_type: mysql_type.to_owned(),
            charset: 63,
            ..Self::text(name, length)
        }
    }

    fn type_code(&self) -> u8 {
        match self.mysql_type.as_str() {
            "SHORT" => 2,
            "LONG" => 3,
            "FLOAT" => 4,
            "DOUBLE" => 5,
            "LONGLONG" => 8,
            "DATE" => 10,
            "DATETIME" => 12,
            "NEWDECIMAL" => 0xf6,
            "BLOB" => 0xfc,
            "VAR_STRING" => 0xfd,
            "CHAR" | "STRING" => 0xfe,
            other => panic!("no code for the type {other}"),
        }
    }
}

impl Reply {
    pub fn done() -> Self {
        Self::Ok { affected: 0 }
    }

    pub fn error(code: u16, message: impl Into<String>) -> Self {
        Self::Error {
            code,
            sqlstate: "HY000".into(),
            message: message.into(),
        }
    }
}

pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

pub struct Connection {
    stream: Box<dyn Stream>,
    sequence: u8,
}

const NONCE: &[u8; 20] = b"abcdefghijklmnopqrst";

fn lenenc(out: &mut Vec<u8>, n: u64) {
    match n {
        0..=250 => out.push(n as u8),
        251..=0xffff => {
            out.push(0xfc);
            out.extend((n as u16).to_le_bytes());
        }
        0x1_0000..=0xff_ffff => {
            out.push(0xfd);
            out.extend(&(n as u32).to_le_bytes()[..3]);
        }
        _ => {
            out.push(0xfe);
            out.extend(n.to_le_bytes());
        }
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    lenenc(out, text.len() as u64);
    out.extend(text.as_bytes());
}

impl Connection {
    /// Shakes hands; answers `None` when the client goes away or may not come in.
    pub async fn accept(
        socket: TcpStream,
        id: u32,
        password: &str,
        tls: Option<Arc<TlsAcceptor>>,
    ) -> Option<Self> {
        socket.set_nodelay(true).ok()?;
        let mut connection = Self {
            stream: Box::new(socket),
            sequence: 0,
        };
        let mut capabilities = CapabilityFlags::CLIENT_PROTOCOL_41
            | CapabilityFlags::CLIENT_SECURE_CONNECTION
            | CapabilityFlags::CLIENT_PLUGIN_AUTH
            | CapabilityFlags::CLIENT_CONNECT_WITH_DB
            | CapabilityFlags::CLIENT_LONG_PASSWORD
            | CapabilityFlags::CLIENT_TRANSACTIONS;
        if tls.is_some() {
            capabilities |= CapabilityFlags::CLIENT_SSL;
        }
        let first: [u8; 8] = NONCE[..8].try_into().ok()?;
        let mut second = NONCE[8..].to_vec();
        second.push(0);
        let hello = HandshakePacket::new(
            10,
            "5.1.0 StarRocks".as_bytes(),
            id,
            first,
            Some(second.as_slice()),
            capabilities,
            33,
            StatusFlags::SERVER_STATUS_AUTOCOMMIT,
            Some("mysql_native_password".as_bytes()),
        );
        let mut packet = Vec::new();
        hello.serialize(&mut packet);
        connection.write(&packet).await?;
        let mut answer = connection.read().await?;
        if answer.len() == 32 {
            // An SSLRequest: the same again, encrypted.
            let stream = std::mem::replace(&mut connection.stream, Box::new(tokio::io::empty()));
            connection.stream = Box::new(tls?.accept(stream).await.ok()?);
            answer = connection.read().await?;
        }
        let response: HandshakeResponse<'_> = ParseBuf(&answer).parse(()).ok()?;
        let expected = scramble_native(NONCE, password.as_bytes())
            .map(|s| s.to_vec())
            .unwrap_or_default();
        if response.scramble_buf() != expected.as_slice() {
            connection
                .reply(&Reply::error(
                    1045,
                    "Access denied for user 'x' (using password: YES)",
                ))
                .await;
            return None;
        }
        connection.reply(&Reply::done()).await.then_some(connection)
    }

    async fn read(&mut self) -> Option<Vec<u8>> {
        let mut header = [0; 4];
        self.stream.read_exact(&mut header).await.ok()?;
        let length = u32::from_le_bytes([header[0], header[1], header[2], 0]) as usize;
        self.sequence = header[3].wrapping_add(1);
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await.ok()?;
        Some(body)
    }

    async fn write(&mut self, body: &[u8]) -> Option<()> {
        let mut packet = (body.len() as u32).to_le_bytes()[..3].to_vec();
        packet.push(self.sequence);
        packet.extend(body);
        self.sequence = self.sequence.wrapping_add(1);
        self.stream.write_all(&packet).await.ok()?;
        self.stream.flush().await.ok()
    }

    /// The next statement; `None` when the client is gone. Pings are answered here.
    pub async fn statement(&mut self) -> Option<String> {
        loop {
            let packet = self.read().await?;
            match packet.first()? {
                3 => return Some(String::from_utf8_lossy(&packet[1..]).into_owned()),
                1 => return None,
                14 | 31 => drop(self.reply(&Reply::done()).await.then_some(())?),
                _ => drop(self.reply(&Reply::error(1047, "Unknown command")).await),
            }
        }
    }

    /// Answers; `false` when the connection is of no more use.
    pub async fn reply(&mut self, reply: &Reply) -> bool {
        self.try_reply(reply).await.is_some()
    }

    async fn try_reply(&mut self, reply: &Reply) -> Option<()> {
        const AUTOCOMMIT: [u8; 4] = [2, 0, 0, 0];
        match reply {
            Reply::Ok { affected } => {
                let mut packet = vec![0];
                lenenc(&mut packet, *affected);
                packet.push(0);
                packet.extend(AUTOCOMMIT);
                self.write(&packet).await
            }
            Reply::Error {
                code,
                sqlstate,
                message,
            } => {
                let mut packet = vec![0xff];
                packet.extend(code.to_le_bytes());
                packet.extend(b"#");
                packet.extend(sqlstate.as_bytes());
                packet.extend(message.as_bytes());
                self.write(&packet).await
            }
            Reply::Rows { columns, rows } => {
                let mut packet = Vec::new();
                lenenc(&mut packet, columns.len() as u64);
                self.write(&packet).await?;
                for column in columns {
                    let mut packet = Vec::new();
                    for part in ["def", "", "", "", &column.name, &column.name] {
                        text(&mut packet, part);
                    }
                    // Twelve bytes follow.
                    packet.push(0x0c);
                    packet.extend(column.charset.to_le_bytes());
                    packet.extend(column.length.to_le_bytes());
                    packet.push(column.type_code());
                    packet.extend(column.flags.to_le_bytes());
                    packet.extend([column.decimals, 0, 0]);
                    self.write(&packet).await?;
                }
                let end = [0xfe, 0, 0, 2, 0];
                self.write(&end).await?;
                for row in rows {
                    let mut packet = Vec::new();
                    for value in row {
                        match value {
                            Some(value) => text(&mut packet, value),
                            None => packet.push(0xfb),
                        }
                    }
                    self.write(&packet).await?;
                }
                self.write(&end).await
            }
        }
    }
}
