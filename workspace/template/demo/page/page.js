
"use strict";
const $ = (id) => document.getElementById(id);

$("echo").addEventListener("click", async () => {
  const start = performance.now();
  try {
    const answer = await fetch("/echo?from=page");
    const text = await answer.text();
    $("echo-time").value = (performance.now() - start).toFixed(1) + " ms";
    $("echo-out").textContent = text;
  } catch (err) {
    $("echo-time").value = "";
    $("echo-out").textContent = "no answer: " + err.message;
  }
  $("echo-out").hidden = false;
});

let socket = null;
let retry = 500;
const sent = [];
function connect() {
  socket = new WebSocket(location.origin.replace(/^http/, "ws") + "/ws");
  socket.addEventListener("open", () => { retry = 500; $("ws-state").textContent = "connected"; });
  socket.addEventListener("message", (event) => {
    const item = document.createElement("li");
    const took = performance.now() - (sent.shift() ?? performance.now());
    item.textContent = event.data + "  (" + took.toFixed(1) + " ms)";
    $("ws-out").prepend(item);
    while ($("ws-out").children.length > 8) $("ws-out").lastChild.remove();
  });
  socket.addEventListener("close", () => {
    sent.length = 0;
    $("ws-state").textContent = "reconnecting";
    setTimeout(connect, retry);
    retry = Math.min(retry * 2, 10000);
  });
}
connect();

$("ws-form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (socket.readyState !== WebSocket.OPEN || $("ws-text").value === "") return;
  sent.push(performance.now());
  socket.send($("ws-text").value);
  $("ws-text").value = "";
});

$("stream").addEventListener("click", () => {
  const bar = $("stream-bar");
  const done = () => { source.close(); $("stream").disabled = false; };
  bar.value = 0;
  $("stream").disabled = true;
  const source = new EventSource("/stream?n=10&interval=200ms");
  source.addEventListener("message", () => { bar.value += 1; });
  source.addEventListener("end", done);
  source.addEventListener("error", done);
});
