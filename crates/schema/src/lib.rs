//! One table per API type, and the codecs it drives.
