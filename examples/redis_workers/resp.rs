//! Redis's protocol, as much of it as is needed: commands are arrays of strings, replies are values.

use std::io;
use std::pin::Pin;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// What the server said.
#[derive(Debug, PartialEq)]
pub(crate) enum Reply {
    Nil,
    Number(i64),
    Text(String),
    Error(String),
    List(Vec<Self>),
}

impl Reply {
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn number(&self) -> Option<i64> {
        match self {
            Self::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// Whether the server is there, and cannot answer yet.
    pub(crate) fn is_loading(&self) -> bool {
        matches!(self, Self::Error(error) if error.starts_with("LOADING"))
    }

    /// The entries of a list; none of anything else.
    pub(crate) fn list(&self) -> &[Self] {
        match self {
            Self::List(list) => list,
            _ => &[],
        }
    }
}

/// One connection: a command, its reply, the next one.
pub(crate) struct Connection(BufReader<TcpStream>);

impl Connection {
    pub(crate) async fn open(address: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Not cancel safe: a connection whose call was dropped has to be dropped as well.
    pub(crate) async fn call(&mut self, command: &[&str]) -> io::Result<Reply> {
        let mut text = format!("*{}\r\n", command.len());
        for word in command {
            text.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        self.0.write_all(text.as_bytes()).await?;
        self.reply().await
    }

    fn reply(&mut self) -> Pin<Box<dyn Future<Output = io::Result<Reply>> + Send + '_>> {
        Box::pin(async move {
            let mut line = String::new();
            self.0.read_line(&mut line).await?;
            let Some(line) = line.strip_suffix("\r\n").filter(|line| !line.is_empty()) else {
                return Err(io::ErrorKind::UnexpectedEof.into());
            };
            let (kind, rest) = line.split_at(1);
            let number = || {
                rest.parse::<i64>()
                    .map_err(|_| io::Error::other(format!("not a number: {rest:?}")))
            };
            Ok(match kind {
                "+" => Reply::Text(rest.to_owned()),
                "-" => Reply::Error(rest.to_owned()),
                ":" => Reply::Number(number()?),
                "$" => match usize::try_from(number()?) {
                    Err(_) => Reply::Nil,
                    Ok(length) => {
                        let mut bytes = vec![0; length + 2];
                        self.0.read_exact(&mut bytes).await?;
                        bytes.truncate(length);
                        Reply::Text(String::from_utf8(bytes).map_err(io::Error::other)?)
                    }
                },
                "*" => match usize::try_from(number()?) {
                    Err(_) => Reply::Nil,
                    Ok(length) => {
                        let mut list = Vec::new();
                        for _ in 0..length {
                            list.push(self.reply().await?);
                        }
                        Reply::List(list)
                    }
                },
                _ => return Err(io::Error::other(format!("not a reply: {line:?}"))),
            })
        })
    }
}
