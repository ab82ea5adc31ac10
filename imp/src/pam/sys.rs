//! The calls of libpam that a session takes, without its headers.

#![expect(
    unsafe_code,
    reason = "calls of a C library; every block says why it is sound"
)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};

/// `PAM_SUCCESS`
const SUCCESS: c_int = 0;
/// `PAM_CONV_ERR`
const CONVERSATION_ERROR: c_int = 19;
/// `PAM_USER`, `PAM_RUSER`
const ITEM_USER: c_int = 2;
const ITEM_RUSER: c_int = 8;
/// `PAM_ESTABLISH_CRED`, `PAM_DELETE_CRED`
const ESTABLISH: c_int = 2;
const DELETE: c_int = 4;
/// `PAM_ERROR_MSG`, `PAM_TEXT_INFO`: nothing has to be answered.
const ERROR_MESSAGE: c_int = 3;
const TEXT: c_int = 4;

#[repr(C)]
struct Message {
    style: c_int,
    text: *const c_char,
}

#[repr(C)]
struct Response {
    text: *mut c_char,
    code: c_int,
}

type Converse = extern "C" fn(c_int, *mut *const Message, *mut *mut Response, *mut c_void) -> c_int;

#[repr(C)]
struct Conversation {
    converse: Converse,
    data: *mut c_void,
}

/// `pam_handle_t`
#[repr(C)]
struct Opaque([u8; 0]);

#[link(name = "libpam.so.0", kind = "dylib", modifiers = "+verbatim")]
unsafe extern "C" {
    fn pam_start(
        service: *const c_char,
        user: *const c_char,
        conversation: *const Conversation,
        handle: *mut *mut Opaque,
    ) -> c_int;
    fn pam_set_item(handle: *mut Opaque, item: c_int, value: *const c_void) -> c_int;
    fn pam_get_item(handle: *const Opaque, item: c_int, value: *mut *const c_void) -> c_int;
    fn pam_setcred(handle: *mut Opaque, flags: c_int) -> c_int;
    fn pam_open_session(handle: *mut Opaque, flags: c_int) -> c_int;
    fn pam_close_session(handle: *mut Opaque, flags: c_int) -> c_int;
    fn pam_end(handle: *mut Opaque, status: c_int) -> c_int;
    fn pam_strerror(handle: *mut Opaque, status: c_int) -> *const c_char;
}

/// Nobody is there to answer: a question fails, a remark is passed over.
extern "C" fn converse(
    count: c_int,
    messages: *mut *const Message,
    answers: *mut *mut Response,
    _data: *mut c_void,
) -> c_int {
    let Ok(size) = usize::try_from(count) else {
        return CONVERSATION_ERROR;
    };
    for at in 0..size {
        // SAFETY: libpam passes `count` pointers, so this one is inside.
        let place = unsafe { messages.add(at) };
        // SAFETY: a place inside of libpam's array.
        let message = unsafe { *place };
        // SAFETY: libpam passes pointers to messages.
        let style = unsafe { (*message).style };
        if style != ERROR_MESSAGE && style != TEXT {
            return CONVERSATION_ERROR;
        }
    }
    // SAFETY: libpam frees what is allocated here, as its interface demands.
    let room = unsafe { libc::calloc(size.max(1), size_of::<Response>()) };
    if room.is_null() {
        return CONVERSATION_ERROR;
    }
    // SAFETY: `answers` is where libpam wants the pointer.
    unsafe { *answers = room.cast() };
    SUCCESS
}

/// A step that failed, and libpam's words for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Name of the call.
    pub call: &'static str,
    /// Why.
    pub why: String,
}

/// A conversation with libpam; ends with it.
#[derive(Debug)]
pub struct Handle {
    raw: *mut Opaque,
    last: c_int,
}

impl Handle {
    /// Begins for a user; `caller` is who asks for it.
    pub fn start(service: &CStr, user: &CStr, caller: &CStr) -> Result<Self, Failure> {
        // libpam copies this during the call.
        let conversation = Conversation {
            converse,
            data: std::ptr::null_mut(),
        };
        let mut handle = Handle {
            raw: std::ptr::null_mut(),
            last: SUCCESS,
        };
        // SAFETY: the texts end with NUL, the conversation is copied during the call, `raw` is writable.
        let status = unsafe {
            pam_start(
                service.as_ptr(),
                user.as_ptr(),
                &raw const conversation,
                &raw mut handle.raw,
            )
        };
        handle.check("pam_start", status)?;
        for (item, value) in [(ITEM_USER, user), (ITEM_RUSER, caller)] {
            // SAFETY: the handle is live; libpam copies the text.
            let status = unsafe { pam_set_item(handle.raw, item, value.as_ptr().cast()) };
            handle.check("pam_set_item", status)?;
        }
        Ok(handle)
    }

    /// Returns the user of the conversation: a module may have changed it.
    pub fn user(&mut self) -> Result<CString, Failure> {
        let mut value = std::ptr::null();
        // SAFETY: the handle is live, `value` is writable.
        let status = unsafe { pam_get_item(self.raw, ITEM_USER, &raw mut value) };
        self.check("pam_get_item", status)?;
        if value.is_null() {
            return Err(Failure {
                call: "pam_get_item",
                why: "no user".to_owned(),
            });
        }
        // SAFETY: PAM_USER is a text with NUL that belongs to the live handle.
        Ok(unsafe { CStr::from_ptr(value.cast()) }.to_owned())
    }

    /// Gives the process the user's credentials.
    pub fn establish(&mut self) -> Result<(), Failure> {
        // SAFETY: the handle is live.
        let status = unsafe { pam_setcred(self.raw, ESTABLISH) };
        self.check("pam_setcred", status)
    }

    /// Takes the credentials away again.
    pub fn delete(&mut self) -> Result<(), Failure> {
        // SAFETY: the handle is live.
        let status = unsafe { pam_setcred(self.raw, DELETE) };
        self.check("pam_setcred", status)
    }

    /// Opens the session.
    pub fn open(&mut self) -> Result<(), Failure> {
        // SAFETY: the handle is live.
        let status = unsafe { pam_open_session(self.raw, 0) };
        self.check("pam_open_session", status)
    }

    /// Closes the session.
    pub fn close(&mut self) -> Result<(), Failure> {
        // SAFETY: the handle is live.
        let status = unsafe { pam_close_session(self.raw, 0) };
        self.check("pam_close_session", status)
    }

    fn check(&mut self, call: &'static str, status: c_int) -> Result<(), Failure> {
        self.last = status;
        if status == SUCCESS {
            return Ok(());
        }
        // SAFETY: libpam's texts are constants, whatever the handle.
        let text = unsafe { pam_strerror(self.raw, status) };
        let why = if text.is_null() {
            format!("status {status}")
        } else {
            // SAFETY: not null, so a constant text with NUL.
            unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
        };
        Err(Failure { call, why })
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if !self.raw.is_null() {
            // SAFETY: the handle is live and not used again.
            unsafe { pam_end(self.raw, self.last) };
        }
    }
}
