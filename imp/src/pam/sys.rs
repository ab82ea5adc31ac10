//! The calls of libpam that a session takes, without its headers.

#![expect(
    unsafe_code,
    reason = "calls of a C library; every block says why it is sound"
)]

use std::ffi::{CStr, c_char, c_int, c_void};

use crate::refusal::demand;

/// `PAM_SUCCESS`
const SUCCESS: c_int = 0;
/// `PAM_CONV_ERR`
const CONVERSATION_ERROR: c_int = 19;
/// `PAM_USER`, `PAM_RUSER`
const ITEM_USER: c_int = 2;
const ITEM_RUSER: c_int = 8;
/// `struct pam_conv`; the messages and answers of a conversation are of no interest here.
#[repr(C)]
struct Conversation {
    converse: extern "C" fn(c_int, *mut c_void, *mut c_void, *mut c_void) -> c_int,
    data: *mut c_void,
}

/// `pam_handle_t`
#[repr(C)]
#[derive(Debug)]
struct Opaque([u8; 0]);

/// Declares libpam's calls, and how all of them are found.
macro_rules! calls {
    ($($name:ident($($argument:ty),*) -> $result:ty;)*) => {
        /// libpam. It is loaded for the first session: a node that opens none does not have its code in the process.
        #[derive(Debug)]
        struct Library {
            $($name: unsafe extern "C" fn($($argument),*) -> $result,)*
        }

        impl Library {
            fn load() -> Result<Library, String> {
                // Modules that are not linked with libpam find its calls.
                let flags = libc::RTLD_NOW | libc::RTLD_GLOBAL;
                // SAFETY: the name ends with NUL; a setuid program's search for it ignores the environment.
                let library = unsafe { libc::dlopen(c"libpam.so.0".as_ptr(), flags) };
                demand(!library.is_null(), "pam: libpam.so.0 cannot be loaded")?;
                Ok(Library {
                    $($name: {
                        // SAFETY: the library stays loaded, the name ends with NUL.
                        let found = unsafe { libc::dlsym(library, concat!(stringify!($name), "\0").as_ptr().cast()) };
                        demand(!found.is_null(), concat!("pam: no ", stringify!($name)))?;
                        // SAFETY: not null, so the call of that name, whose type pam_appl.h gives.
                        unsafe { std::mem::transmute::<*mut c_void, unsafe extern "C" fn($($argument),*) -> $result>(found) }
                    },)*
                })
            }
        }
    };
}

calls! {
    pam_start(*const c_char, *const c_char, *const Conversation, *mut *mut Opaque) -> c_int;
    pam_set_item(*mut Opaque, c_int, *const c_void) -> c_int;
    pam_get_item(*const Opaque, c_int, *mut *const c_void) -> c_int;
    pam_setcred(*mut Opaque, c_int) -> c_int;
    pam_open_session(*mut Opaque, c_int) -> c_int;
    pam_close_session(*mut Opaque, c_int) -> c_int;
    pam_end(*mut Opaque, c_int) -> c_int;
    pam_strerror(*mut Opaque, c_int) -> *const c_char;
}

type Call = unsafe extern "C" fn(*mut Opaque, c_int) -> c_int;

/// A call of a session's beginning or end: its name, itself, its flags.
#[derive(Debug)]
pub struct Step(&'static str, fn(&Library) -> Call, c_int);

/// Gives the process the user's credentials.
pub const ESTABLISH: Step = Step("pam_setcred", |pam| pam.pam_setcred, 2);
/// Takes the credentials away again.
pub const DELETE: Step = Step("pam_setcred", |pam| pam.pam_setcred, 4);
/// Opens the session.
pub const OPEN: Step = Step("pam_open_session", |pam| pam.pam_open_session, 0);
/// Closes the session.
pub const CLOSE: Step = Step("pam_close_session", |pam| pam.pam_close_session, 0);

/// Nobody is there to answer, and nobody to read: whatever a module says or asks fails.
extern "C" fn converse(_: c_int, _: *mut c_void, _: *mut c_void, _: *mut c_void) -> c_int {
    CONVERSATION_ERROR
}

/// A conversation with libpam; ends with it.
#[derive(Debug)]
pub struct Handle {
    pam: Library,
    raw: *mut Opaque,
    last: c_int,
}

impl Handle {
    /// Begins for a user; `caller` is who asks for it.
    pub fn start(service: &CStr, user: &CStr, caller: &CStr) -> Result<Self, String> {
        // libpam copies this during the call.
        let conversation = Conversation {
            converse,
            data: std::ptr::null_mut(),
        };
        let mut handle = Handle {
            pam: Library::load()?,
            raw: std::ptr::null_mut(),
            last: SUCCESS,
        };
        let (service, name) = (service.as_ptr(), user.as_ptr());
        // SAFETY: the texts end with NUL, the conversation is copied during the call, `raw` is writable.
        let status =
            unsafe { (handle.pam.pam_start)(service, name, &raw const conversation, &raw mut handle.raw) };
        handle.check("pam_start", status)?;
        for (item, value) in [(ITEM_USER, user), (ITEM_RUSER, caller)] {
            // SAFETY: the handle is live; libpam copies the text.
            let status = unsafe { (handle.pam.pam_set_item)(handle.raw, item, value.as_ptr().cast()) };
            handle.check("pam_set_item", status)?;
        }
        Ok(handle)
    }

    /// Returns whether the conversation is still about a user: a module may have changed that.
    pub fn is_about(&mut self, user: &CStr) -> Result<bool, String> {
        let mut value = std::ptr::null();
        // SAFETY: the handle is live, `value` is writable.
        let status = unsafe { (self.pam.pam_get_item)(self.raw, ITEM_USER, &raw mut value) };
        self.check("pam_get_item", status)?;
        // SAFETY: where it is not null, PAM_USER is a text with NUL that belongs to the live handle.
        Ok(!value.is_null() && unsafe { CStr::from_ptr(value.cast()) } == user)
    }

    /// Does a step.
    pub fn call(&mut self, Step(name, step, flags): Step) -> Result<(), String> {
        // SAFETY: the handle is live, and `step` is one of the calls above.
        let status = unsafe { step(&self.pam)(self.raw, flags) };
        self.check(name, status)
    }

    fn check(&mut self, call: &str, status: c_int) -> Result<(), String> {
        self.last = status;
        if status == SUCCESS {
            return Ok(());
        }
        // SAFETY: libpam's texts are constants, whatever the handle.
        let text = unsafe { (self.pam.pam_strerror)(self.raw, status) };
        demand(!text.is_null(), format!("pam: {call}: status {status}"))?;
        // SAFETY: not null, so a constant text with NUL.
        let why = unsafe { CStr::from_ptr(text) };
        Err(format!("pam: {call}: {}", why.to_string_lossy()))
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if !self.raw.is_null() {
            // SAFETY: the handle is live and not used again.
            unsafe { (self.pam.pam_end)(self.raw, self.last) };
        }
    }
}
