//! How does a handshake begin? With a `ClientHello`, built by hand here: no library sends one that is this old or this odd.

/// The first message of a client. The numbers are those of IANA's registry.
#[derive(Clone, Debug)]
pub struct Hello {
    /// The version in the message itself: 0x0300 is SSL 3.0, 0x0301 TLS 1.0, 0x0303 TLS 1.2.
    pub version: u16,
    /// The extension `supported_versions`, which counts more; TLS 1.3 (0x0304) is offered only there.
    pub versions: Vec<u16>,
    /// Cipher suites.
    pub suites: Vec<u16>,
    /// Methods of compression; 0 is none.
    pub compression: Vec<u8>,
    /// The name of the server.
    pub name: Vec<u8>,
}

impl Default for Hello {
    /// One that a server of today accepts.
    fn default() -> Self {
        Self {
            version: 0x0303,
            versions: vec![0x0304, 0x0303],
            suites: vec![0x1301, 0x1302, 0xc02b, 0xc02c],
            compression: vec![0],
            name: b"localhost".to_vec(),
        }
    }
}

impl Hello {
    /// As it goes over the wire, in one record.
    pub fn bytes(&self) -> Vec<u8> {
        let body = self.body();
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes();
        let message = [&[1], &length[1..], &body].concat();
        [&[22, 3, u8::from(self.version != 0x0300)], &*sized(&message)].concat()
    }

    fn body(&self) -> Vec<u8> {
        let mut body = self.version.to_be_bytes().to_vec();
        // The random bytes of the client, which nobody checks; and no session to resume.
        body.extend([7; 32]);
        body.push(0);
        body.extend(sized(&numbers(&self.suites)));
        body.push(u8::try_from(self.compression.len()).unwrap_or(u8::MAX));
        body.extend(&self.compression);
        // SSL 3.0 has no extensions.
        if self.version > 0x0300 {
            body.extend(sized(&self.extensions()));
        }
        body
    }

    fn extensions(&self) -> Vec<u8> {
        let name = [&[0], &*sized(&self.name)].concat();
        let mut all = extension(0, &sized(&name));
        // Curves: x25519 and P-256. Signatures: ECDSA and RSA with SHA-256.
        all.extend(extension(10, &sized(&numbers(&[0x001d, 0x0017]))));
        all.extend(extension(11, &[1, 0]));
        all.extend(extension(13, &sized(&numbers(&[0x0403, 0x0804, 0x0401]))));
        // Renegotiation is understood to be secure, or not at all; and the extended master secret.
        all.extend(extension(0xff01, &[0]));
        all.extend(extension(23, &[]));
        if !self.versions.is_empty() {
            let versions = numbers(&self.versions);
            let length = u8::try_from(versions.len()).unwrap_or(u8::MAX);
            all.extend(extension(43, &[&[length], &*versions].concat()));
            // Half of a key exchange. Any 32 bytes are a point of x25519, or nearly any.
            let share = [&numbers(&[0x001d]), &*sized(&[9; 32])].concat();
            all.extend(extension(51, &sized(&share)));
        }
        all
    }
}

fn extension(number: u16, value: &[u8]) -> Vec<u8> {
    [&number.to_be_bytes()[..], &sized(value)].concat()
}

/// With its length before it.
fn sized(value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes()[..], value].concat()
}

fn numbers(numbers: &[u16]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
}
