//! Messages of protobuf, written and read by the numbers of their fields.

/// A message that is being written. What is 0 or empty is left out, as it means nothing else.
#[derive(Default)]
pub struct Message(Vec<u8>);

impl Message {
    pub fn number(mut self, field: u64, value: u64) -> Message {
        if value != 0 {
            self.varint(field << 3);
            self.varint(value);
        }
        self
    }

    pub fn text(self, field: u64, text: &str) -> Message {
        self.put(field, text.as_bytes())
    }

    pub fn message(self, field: u64, message: Message) -> Message {
        self.put(field, &message.0)
    }

    fn put(mut self, field: u64, bytes: &[u8]) -> Message {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    /// As it is sent.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

/// A message that was received. What is not there is 0 or empty.
pub struct Fields(Vec<u8>);

impl Fields {
    /// As it was received.
    pub fn of(bytes: &[u8]) -> Fields {
        Fields(bytes.to_vec())
    }

    pub fn string(&self, field: u64) -> String {
        String::from_utf8_lossy(&self.find(field).1).into_owned()
    }

    pub fn inner(&self, field: u64) -> Fields {
        Fields(self.find(field).1)
    }

    pub fn value(&self, field: u64) -> u64 {
        self.find(field).0
    }

    /// The last field of that number: its number, or its bytes.
    fn find(&self, wanted: u64) -> (u64, Vec<u8>) {
        let (mut rest, mut found) = (self.0.as_slice(), (0, Vec::new()));
        while let Some(tag) = varint(&mut rest) {
            let (mut value, mut bytes): (u64, &[u8]) = (0, &[]);
            let length = match tag & 7 {
                0 => {
                    value = varint(&mut rest).unwrap_or(0);
                    0
                }
                1 => 8,
                5 => 4,
                _ => varint(&mut rest).and_then(|length| usize::try_from(length).ok()).unwrap_or(0),
            };
            if length > 0 {
                let (taken, left) = rest.split_at(length.min(rest.len()));
                (bytes, rest) = (taken, left);
            }
            if tag >> 3 == wanted {
                found = (value, bytes.to_vec());
            }
        }
        found
    }
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, left) = rest.split_first()?;
        *rest = left;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    Some(value)
}
