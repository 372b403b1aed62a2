//! TFTP (RFC 1350): a client asks at the server's well-known port, the server answers from a port of its own that
//! nobody has announced. So the request itself is the announcement.

/// Read request (RFC 1350 section 5).
const READ: [u8; 2] = [0, 1];
/// Write request.
const WRITE: [u8; 2] = [0, 2];

/// True if a datagram's payload asks for a transfer. Both requests name a file and a mode, each ended by a zero byte
/// (RFC 1350 section 5); options may follow (RFC 2347). A request that is cut short is none, as no server answers it.
#[must_use]
pub fn is_request(payload: &[u8]) -> bool {
    let Some((opcode, names)) = payload.split_first_chunk::<2>() else { return false };
    let mut ended =
        names.split_inclusive(|byte| *byte == 0).filter(|name| name.len() > 1 && name.ends_with(&[0]));
    matches!(*opcode, READ | WRITE) && ended.next().is_some() && ended.next().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_to_read_and_to_write_are_requests() {
        assert!(is_request(b"\0\x01boot.img\0octet\0"));
        assert!(is_request(b"\0\x02upload\0netascii\0"));
        assert!(is_request(b"\0\x01a\0octet\0blksize\x001428\0"));
    }

    #[test]
    fn data_acknowledgements_errors_and_cut_requests_are_none() {
        for payload in [
            &b""[..],
            b"\0",
            b"\0\x01",
            b"\0\x01boot.img\0",
            b"\0\x01boot.img\0octet",
            b"\0\x01\0octet\0",
            b"\0\x03\0\x01data\0data\0",
            b"\0\x04\0\x01",
            b"\0\x05\0\x01none\0none\0",
            b"\x01\0boot.img\0octet\0",
        ] {
            assert!(!is_request(payload), "{payload:?}");
        }
    }
}
