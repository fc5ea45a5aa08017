// The editor's preview, its saving of drafts while somebody types, and images that are dropped on it.
const form = document.getElementById("post");
const body = form.elements.body;
const preview = document.getElementById("preview");
const details = preview.closest("details");
const saved = document.getElementById("saved");
const PREVIEW_AFTER = 500;
const SAVE_AFTER = 4000;
let previewing, saving, sending = null, changed = false;

function send(path, content, accept) {
  const headers = {Accept: accept};
  // A form that has no token of its own in it.
  if (!content.has("form_token")) headers["X-Form-Token"] = form.elements.form_token.value;
  return fetch(path, {method: "POST", headers, body: content});
}

async function showPreview() {
  if (!details.open) return;
  const answer = await send("/desk/preview", new URLSearchParams({body: body.value}), "text/html");
  if (answer.ok) preview.innerHTML = await answer.text(); // sanitised by the server, as it will be on the page
}

// Only a draft is saved by itself: nobody else sees it.
async function save() {
  if (!changed || form.elements.status.value !== "draft" || !form.elements.title.value || !body.value) return;
  if (sending) {
    saving = setTimeout(save, SAVE_AFTER);
    return;
  }
  changed = false;
  sending = store();
  const isStored = await sending;
  sending = null;
  // What is not stored is lost with the page.
  if (!isStored) changed = true;
}

async function store() {
  try {
    const answer = await send(form.getAttribute("action"), new URLSearchParams(new FormData(form)), "application/json");
    if (answer.ok && answer.headers.get("Content-Type").startsWith("application/json")) {
      const {path, etag} = await answer.json();
      form.setAttribute("action", path);
      form.elements.etag.value = etag;
      if (location.pathname !== path) history.replaceState(null, "", path);
      saved.textContent = "Saved as a draft.";
      return true;
    }
    saved.textContent = answer.status === 412
      ? "Somebody else has saved this meanwhile: save it yourself to see what they changed."
      : "This could not be saved just now.";
  } catch {
    saved.textContent = "Not saved: there is no connection.";
  }
  return false;
}

form.addEventListener("input", () => {
  changed = true;
  saved.textContent = "";
  clearTimeout(saving);
  saving = setTimeout(save, SAVE_AFTER);
});
form.addEventListener("submit", async (event) => {
  clearTimeout(saving);
  if (sending) {
    // What is on its way may make the post: sent again meanwhile, it would be made twice.
    event.preventDefault();
    await sending;
    form.requestSubmit(event.submitter);
    return;
  }
  changed = false;
});
body.addEventListener("input", () => { clearTimeout(previewing); previewing = setTimeout(showPreview, PREVIEW_AFTER); });
details.addEventListener("toggle", showPreview);
addEventListener("beforeunload", (event) => { if (changed) event.preventDefault(); });

async function upload(file) {
  const content = new FormData();
  content.append("file", file);
  const answer = await send("/desk/media", content, "application/json");
  if (!answer.ok) {
    saved.textContent = `${file.name} was not taken: it is no image, or too large.`;
    return;
  }
  const {url} = await answer.json();
  const name = file.name.replace(/\.[^.]*$/, "").replace(/[[\]\\]/g, "");
  body.setRangeText(`![${name}](${url})\n`, body.selectionStart, body.selectionEnd, "end");
  body.dispatchEvent(new Event("input", {bubbles: true}));
}

body.addEventListener("dragover", (event) => event.preventDefault());
body.addEventListener("drop", async (event) => {
  if (!event.dataTransfer.files.length) return;
  event.preventDefault();
  for (const file of event.dataTransfer.files) await upload(file);
});
body.addEventListener("paste", async (event) => {
  if (!event.clipboardData.files.length) return;
  event.preventDefault();
  for (const file of event.clipboardData.files) await upload(file);
});
