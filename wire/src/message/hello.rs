use interleaf_store::api::StoreInfo;
use interleaf_store::codec::{Reader, Writer};
use interleaf_store::types::{Incarnation, StoreId};
use interleaf_store::{Error, Result};

use super::{KIND_HELLO, field};
use crate::frame;
use crate::limits::{MAGIC, MAX_SOFTWARE_BYTES, PROTOCOL_VERSION};

/// A client's first message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientHello {
    /// What the client can do, as bits; none are defined yet.
    pub capabilities: u64,
    /// Name and version of the client's program.
    pub software: String,
}

/// A server's first message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerHello {
    /// What the server can do, as bits; none are defined yet.
    pub capabilities: u64,
    /// The store that it serves.
    pub store: StoreInfo,
}

impl ClientHello {
    /// The hello as a frame.
    ///
    /// # Errors
    /// None: its text is cut.
    pub fn encode(&self, id: u64) -> Result<Vec<u8>> {
        frame::build(id, KIND_HELLO, 64, |w| {
            w.bytes(&MAGIC).u16(PROTOCOL_VERSION).u64(self.capabilities);
            field::put_cut_text(w, &self.software, MAX_SOFTWARE_BYTES);
        })
    }

    /// Reads a client's hello. What another protocol version has behind its number is not
    /// looked at.
    ///
    /// # Errors
    /// `Corrupt` for another magic, `ProtocolVersion` for another version.
    pub fn decode(body: &[u8]) -> Result<Self> {
        let mut r = Reader::new(body, "hello");
        if r.array()? != MAGIC {
            return Err(r.corrupt("it does not begin with ILF1: no Interleaf client"));
        }
        expect_version(r.u16()?)?;
        let capabilities = r.u64()?;
        let software = field::text(&mut r, "software", MAX_SOFTWARE_BYTES)?;
        r.end()?;
        Ok(Self { capabilities, software })
    }
}

impl ServerHello {
    pub(super) fn encode(&self, w: &mut Writer) {
        w.u16(PROTOCOL_VERSION).u64(self.capabilities);
        put_store_info(w, &self.store);
    }

    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self> {
        expect_version(r.u16()?)?;
        Ok(Self { capabilities: r.u64()?, store: store_info(r)? })
    }
}

fn expect_version(found: u16) -> Result<()> {
    if found == PROTOCOL_VERSION {
        return Ok(());
    }
    Err(Error::ProtocolVersion { found: found.into(), known: PROTOCOL_VERSION.into() })
}

pub(super) fn put_store_info(w: &mut Writer, info: &StoreInfo) {
    w.bytes(&info.store.to_bytes()).bytes(&info.incarnation.to_bytes());
    field::put_cut_text(w, &info.engine, MAX_SOFTWARE_BYTES);
    field::put_cut_text(w, &info.software, MAX_SOFTWARE_BYTES);
}

pub(super) fn store_info(r: &mut Reader<'_>) -> Result<StoreInfo> {
    Ok(StoreInfo {
        store: r.array().map(StoreId::from_bytes)?,
        incarnation: r.array().map(Incarnation::from_bytes)?,
        engine: field::text(r, "engine", MAX_SOFTWARE_BYTES)?,
        software: field::text(r, "software", MAX_SOFTWARE_BYTES)?,
    })
}
