// Asking the server, with the token that the visitor gave, and reading its live stream.

const TOKEN = "stream-infer-token";

export function setToken(token) {
  sessionStorage.setItem(TOKEN, token);
}

export function ask(path, options = {}) {
  const token = sessionStorage.getItem(TOKEN);
  const headers = { ...(options.headers ?? {}) };
  if (token) headers.Authorization = `Bearer ${token}`;
  return fetch(path, { ...options, headers });
}

// What went wrong, from an answer that is no success.
export async function problem(answer) {
  try {
    const { error } = await answer.json();
    return `${error.what} (${error.where}): ${error.remedy}`;
  } catch {
    return `the server answered ${answer.status}`;
  }
}

// Yields {event, data} of a server-sent event stream. EventSource cannot send a token.
export async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      text += value;
      const blocks = text.split("\n\n");
      text = blocks.pop();
      for (const block of blocks) {
        const found = parse(block);
        if (found.data) yield { event: found.event, data: JSON.parse(found.data) };
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function parse(block) {
  const found = { event: "message", data: "" };
  for (const line of block.split("\n")) {
    if (line.startsWith("event: ")) found.event = line.slice(7);
    else if (line.startsWith("data: ")) found.data += line.slice(6);
  }
  return found;
}
