// What is said while somebody looks. Without it, or without a login, the page stays as it was when it was asked for.
const place = document.getElementById("discussion");
const list = document.getElementById("said");
const present = document.getElementById("present");
const form = document.getElementById("say");
const here = new Map();
let last = Number(place.dataset.last);
let socket = null;
let pause = 1000;

function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function show(message) {
  const item = element("li", {id: `m-${message.number}`, value: message.number});
  const writer = element("span", {dir: "auto"}, message.writer?.name ?? "Somebody who is gone");
  const at = message.created_at.slice(0, 16).replace("T", " ");
  item.append(element("p", {class: "byline"}, writer, " ", element("time", {datetime: message.created_at}, at)));
  if (message.deleted_at) {
    item.append(element("p", {class: "gone"}, "This message was removed."));
  } else {
    const body = element("div", {class: "body", dir: "auto"});
    body.innerHTML = message.html; // sanitised by the server, as on the page itself
    for (const wide of body.querySelectorAll("pre, table")) wide.tabIndex = 0; // to be scrolled by the keyboard
    item.append(body);
  }
  list.append(item);
  last = message.number;
}

function hide(number) {
  const item = document.getElementById(`m-${number}`);
  item?.querySelector(".body")?.replaceWith(element("p", {class: "gone"}, "This message was removed."));
  item?.querySelector("form")?.remove();
}

function tellPresent(frame) {
  if (frame.here) here.clear();
  for (const person of [...(frame.here ?? []), ...(frame.joined ?? [])]) here.set(person.id, person.name);
  for (const person of frame.left ?? []) here.delete(person.id);
  present.textContent = here.size > 1 ? `Here now: ${[...here.values()].join(", ")}` : "";
}

function hear(frame) {
  if (frame.type === "message" && frame.number > last) show(frame);
  if (frame.type === "removed") hide(frame.number);
  if (frame.type === "presence") tellPresent(frame);
  if (frame.type === "error" && form) form.querySelector("#told").textContent = frame.detail;
  if (frame.type === "posted" && form) {
    form.reset();
    form.querySelector("#told").textContent = "";
  }
}

function listen() {
  const url = new URL(`/room/${place.dataset.room}/live?after=${last}`, location.href);
  url.protocol = url.protocol.replace("http", "ws");
  socket = new WebSocket(url);
  let opened = false;
  socket.onopen = () => { opened = true; pause = 1000; };
  socket.onmessage = (event) => hear(JSON.parse(event.data));
  socket.onclose = (event) => {
    // Refused, as to who is not logged in, or over for good: 4401, 4404, 4409 …
    if (!opened || event.code >= 4000) return;
    setTimeout(listen, pause * (0.5 + Math.random()));
    pause = Math.min(pause * 2, 30000);
  };
}

form?.addEventListener("submit", (event) => {
  if (socket?.readyState !== WebSocket.OPEN) return; // the form goes the ordinary way
  event.preventDefault();
  socket.send(JSON.stringify({type: "message", body: form.elements.body.value, ref: crypto.randomUUID()}));
});

if (place.dataset.room) listen();
