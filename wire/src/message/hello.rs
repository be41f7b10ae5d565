use interleaf_heads::Place;
use interleaf_store::api::StoreInfo;
use interleaf_store::codec::{Reader, Writer};
use interleaf_store::types::{Incarnation, StoreId};
use interleaf_store::{Error, Result};

use super::{KIND_HELLO, field};
use crate::frame;
use crate::limits::{MAGIC, MAX_BOOT_BYTES, MAX_PATH_BYTES, MAX_SOFTWARE_BYTES, PROTOCOL_VERSION};

/// Capability: heads in shared memory. A client that has it can read them, a server that
/// has it says where they are.
pub const CAN_SHARE_HEADS: u64 = 1;

/// A client's first message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientHello {
    /// What the client can do, as bits.
    pub capabilities: u64,
    /// Name and version of the client's program.
    pub software: String,
}

/// A server's first message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerHello {
    /// What the server can do, as bits, [`CAN_SHARE_HEADS`] excepted: `heads` says that.
    pub capabilities: u64,
    /// The store that it serves.
    pub store: StoreInfo,
    /// Where the heads are in shared memory; only to a client that can read them.
    pub heads: Option<Place>,
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
        let heads = self.heads.as_ref().and_then(|place| Some((place, place.path.to_str()?)));
        let bit = if heads.is_some() { CAN_SHARE_HEADS } else { 0 };
        w.u16(PROTOCOL_VERSION).u64(self.capabilities & !CAN_SHARE_HEADS | bit);
        put_store_info(w, &self.store);
        if let Some((place, path)) = heads {
            w.text(path).u64(place.device).u64(place.inode).u64(place.generation);
            w.text(&place.boot);
        }
    }

    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self> {
        expect_version(r.u16()?)?;
        let (bits, store) = (r.u64()?, store_info(r)?);
        let heads = (bits & CAN_SHARE_HEADS != 0).then(|| heads_place(r)).transpose()?;
        Ok(Self { capabilities: bits & !CAN_SHARE_HEADS, store, heads })
    }
}

fn heads_place(r: &mut Reader<'_>) -> Result<Place> {
    Ok(Place {
        path: field::text(r, "the heads' path", MAX_PATH_BYTES)?.into(),
        device: r.u64()?,
        inode: r.u64()?,
        generation: r.u64()?,
        boot: field::text(r, "the machine's run", MAX_BOOT_BYTES)?,
    })
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
