//! One message of D-Bus: a header of known length, fields, and a body. The bytes are made and read by zbus's codec.
//!
//! Little-endian throughout: whoever answers on a unix socket has our byte order.

use serde::Serialize;
use serde::ser::{SerializeStruct, Serializer};
use std::io::{self, Read};
use zbus::wire::serialized::{Context, Data};
use zbus::wire::{LE, to_bytes};
use zbus::{DynamicType, ObjectPath, Signature, Type, Variant};

/// A method of an object.
#[derive(Debug, Clone, Copy)]
pub struct Method<'a> {
    /// The bus name of whom is asked.
    pub destination: &'a str,
    /// The object.
    pub path: &'a str,
    /// The interface.
    pub interface: &'a str,
    /// The method itself.
    pub member: &'a str,
}

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The answer to the call with this serial.
    Reply(u32),
    /// The refusal of the call with this serial.
    Error(u32),
    /// A signal.
    Signal,
    /// Anything else: not for us.
    Other,
}

/// A message that was received.
#[derive(Debug)]
pub struct Message {
    /// What it is.
    pub kind: Kind,
    /// `INTERFACE.MEMBER` of a signal, the error's name of an error.
    pub name: String,
    body: Vec<u8>,
}

/// The fixed part of a header, and its fields.
type Header<V> = (u8, u8, u8, u8, u32, u32, Vec<(u8, V)>);

/// The value of a field that we send.
enum Field<'a> {
    Of(Variant<'a>),
    /// The types of all arguments, one after the other. As a [`Variant`] they would be in the brackets of a structure.
    Types(String),
}

impl Type for Field<'_> {
    const SIGNATURE: &'static Signature = &Signature::Variant;
}

impl Serialize for Field<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Field::Of(value) => value.serialize(serializer),
            Field::Types(types) => {
                // As the codec has a variant: its type, its value.
                let mut variant = serializer.serialize_struct("Variant", 2)?;
                variant.serialize_field("signature", &Signature::Signature)?;
                variant.serialize_field("value", types)?;
                variant.end()
            }
        }
    }
}

/// A call as bytes.
pub fn call<B>(method: Method<'_>, serial: u32, body: &B) -> zbus::Result<Vec<u8>>
where
    B: Serialize + DynamicType,
{
    let arguments = to_bytes(Context::new(LE, 0), body)?;
    let mut fields = vec![
        (PATH, Field::Of(ObjectPath::try_from(method.path)?.into())),
        (INTERFACE, Field::Of(method.interface.into())),
        (MEMBER, Field::Of(method.member.into())),
        (DESTINATION, Field::Of(method.destination.into())),
    ];
    let types = body.signature().to_string_no_parens();
    if !types.is_empty() {
        fields.push((SIGNATURE, Field::Types(types)));
    }
    let length = u32::try_from(arguments.len()).map_err(|_| zbus::Error::OutOfBounds)?;
    let header: Header<Field<'_>> = (LITTLE_ENDIAN, METHOD_CALL, 0, PROTOCOL, length, serial, fields);
    let mut bytes = to_bytes(Context::new(LE, 0), &header)?.to_vec();
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes.extend_from_slice(&arguments);
    Ok(bytes)
}

impl Message {
    /// Reads one.
    pub fn read(from: &mut impl Read) -> io::Result<Message> {
        let mut start = [0_u8; 16];
        from.read_exact(&mut start)?;
        let number = |at: usize| {
            let bytes = start.get(at..).and_then(|rest| rest.first_chunk::<4>());
            bytes.map_or(u32::MAX, |bytes| u32::from_le_bytes(*bytes)) as usize
        };
        let (body, fields) = (number(4), number(12));
        if start.first() != Some(&LITTLE_ENDIAN) || body > LONGEST || fields > LONGEST {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a message of D-Bus"));
        }
        let mut header = start.to_vec();
        header.resize(start.len().saturating_add(fields).next_multiple_of(8), 0);
        from.read_exact(header.get_mut(start.len()..).unwrap_or_default())?;
        let mut body = vec![0; body];
        from.read_exact(&mut body)?;
        // The padding after the fields is not theirs.
        header.truncate(start.len().saturating_add(fields));
        Message::of(&header, body)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))
    }

    fn of(header: &[u8], body: Vec<u8>) -> zbus::Result<Message> {
        let header = Data::new(header, Context::new(LE, 0));
        let ((_, kind, _, _, _, _, fields), _): (Header<Variant<'_>>, usize) = header.deserialize()?;
        let (mut name, mut interface, mut serial) = (String::new(), String::new(), 0);
        for (code, value) in fields {
            match (code, value) {
                (MEMBER | ERROR_NAME, Variant::Str(text)) => name = text.to_string(),
                (INTERFACE, Variant::Str(text)) => interface = text.to_string(),
                (REPLY_SERIAL, Variant::U32(number)) => serial = number,
                _ => {}
            }
        }
        let kind = match kind {
            METHOD_RETURN => Kind::Reply(serial),
            ERROR => Kind::Error(serial),
            SIGNAL => Kind::Signal,
            _ => Kind::Other,
        };
        if kind == Kind::Signal {
            name = format!("{interface}.{name}");
        }
        Ok(Message { kind, name, body })
    }

    /// Its arguments.
    pub fn arguments<T>(&self) -> zbus::Result<T>
    where
        T: serde::de::DeserializeOwned + Type,
    {
        Ok(Data::new(self.body.as_slice(), Context::new(LE, 0)).deserialize()?.0)
    }
}

/// No message that concerns us comes near to it, in bytes.
const LONGEST: usize = 16 << 20;

// D-Bus specification, "Message Format" and "Header Fields".
const LITTLE_ENDIAN: u8 = b'l';
const PROTOCOL: u8 = 1;
const METHOD_CALL: u8 = 1;
const METHOD_RETURN: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    const HELLO: Method<'_> = Method {
        destination: "org.freedesktop.DBus",
        path: "/org/freedesktop/DBus",
        interface: "org.freedesktop.DBus",
        member: "Hello",
    };

    #[test]
    fn a_call_is_laid_out_as_the_specification_has_it() {
        let bytes = call(HELLO, 1, &()).unwrap();
        assert_eq!(bytes[..16], [b'l', 1, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0x6d, 0, 0, 0]);
        // path 'o'
        assert_eq!(bytes[16..24], [1, 1, b'o', 0, 21, 0, 0, 0]);
        assert_eq!(bytes.len() % 8, 0);
        let bytes = call(HELLO, 2, &("a", 7_u32)).unwrap();
        // Two types, and no brackets around them.
        let signature = [8, 1, b'g', 0, 2, b's', b'u', 0];
        assert!(bytes.windows(8).any(|window| window == signature), "{bytes:?}");
        assert_eq!(bytes[bytes.len() - 12..], [1, 0, 0, 0, b'a', 0, 0, 0, 7, 0, 0, 0]);
    }

    #[test]
    fn what_is_received_is_told_apart() {
        let make = |kind: u8, fields: Vec<(u8, Variant<'_>)>, body: &[u8]| {
            let header: Header<Variant<'_>> = (b'l', kind, 0, 1, body.len() as u32, 9, fields);
            let mut bytes = to_bytes(Context::new(LE, 0), &header).unwrap().to_vec();
            bytes.resize(bytes.len().next_multiple_of(8), 0);
            bytes.extend(body);
            Message::read(&mut bytes.as_slice()).unwrap()
        };
        let reply = make(METHOD_RETURN, vec![(REPLY_SERIAL, Variant::from(5_u32))], &[3, 0, 0, 0]);
        assert_eq!((reply.kind, reply.arguments::<u32>().unwrap()), (Kind::Reply(5), 3));
        let name = (ERROR_NAME, Variant::from("org.example.No"));
        let error = make(ERROR, vec![name, (REPLY_SERIAL, Variant::from(6_u32))], &[]);
        assert_eq!((error.kind, error.name.as_str()), (Kind::Error(6), "org.example.No"));
        let fields = vec![(INTERFACE, Variant::from("a.b")), (MEMBER, Variant::from("C"))];
        let signal = make(SIGNAL, fields, &[]);
        assert_eq!((signal.kind, signal.name.as_str()), (Kind::Signal, "a.b.C"));
    }

    #[test]
    fn what_is_no_message_is_an_error() {
        let long = [b'l', 2, 0, 1, 255, 255, 255, 255, 1, 0, 0, 0, 0, 0, 0, 0];
        let big_endian = [b'B', 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0];
        let cut_short = [b'l', 2, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0, 1];
        for bytes in [&long[..], &big_endian, &cut_short] {
            assert!(Message::read(&mut &*bytes).is_err(), "{bytes:?}");
        }
    }
}
