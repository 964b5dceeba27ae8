/**
 * Builds an element. Text always becomes a text node, never markup: names come from people and are not trusted.
 * @param {string} tag with classes, for example "p.hint.small"
 * @param {Record<string, unknown>} attributes false, null and undefined leave one out; `vars` sets CSS variables
 * @param {...unknown} children nodes, texts, arrays of them; false, null and undefined are left out
 */
export function h(tag, attributes = {}, ...children) {
  const [name, ...classes] = tag.split(".");
  const element = document.createElement(name);
  if (classes.length > 0) element.className = classes.join(" ");
  for (const [key, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (key === "vars") for (const [variable, text] of Object.entries(value)) element.style.setProperty(variable, text);
    else element.setAttribute(key, value === true ? "" : String(value));
  }
  for (const child of children.flat(Infinity)) {
    if (child === false || child === null || child === undefined) continue;
    element.append(child instanceof Node ? child : String(child));
  }
  return element;
}

/**
 * Makes the children of `target` look like `nodes` while keeping the elements that are there, so that focus, selection, scroll positions
 * and open details survive an update. Children of an element with `data-opaque` belong to somebody else and are left alone.
 */
export function patchChildren(target, ...nodes) {
  const wanted = nodes.flat(Infinity).filter((node) => node instanceof Node);
  for (let index = 0; index < wanted.length; index++) {
    const present = target.childNodes[index];
    if (present === undefined) target.append(wanted[index]);
    else patch(present, wanted[index]);
  }
  while (target.childNodes.length > wanted.length) target.lastChild.remove();
}

function patch(present, wanted) {
  const sameKind = present.nodeName === wanted.nodeName && present.nodeType === wanted.nodeType;
  if (!sameKind || present.dataset?.key !== wanted.dataset?.key) {
    present.replaceWith(wanted);
    return;
  }
  if (present.nodeType === Node.TEXT_NODE) {
    if (present.data !== wanted.data) present.data = wanted.data;
    return;
  }
  for (const { name } of [...present.attributes]) {
    if (name !== "style" && !wanted.hasAttribute(name) && !isUserState(present, name)) present.removeAttribute(name);
  }
  // Through the object model: the page's policy forbids the attribute, whoever sets it.
  if (present.style.cssText !== wanted.style.cssText) present.style.cssText = wanted.style.cssText;
  for (const { name, value } of wanted.attributes) {
    if (name !== "style" && present.getAttribute(name) !== value && !isUserState(present, name)) present.setAttribute(name, value);
  }
  if (present.dataset.opaque === undefined) patchChildren(present, [...wanted.childNodes]);
  // Once somebody has chosen, the attributes of the options no longer decide.
  if (present.nodeName === "SELECT" && present.value !== wanted.dataset.value) present.value = wanted.dataset.value;
}

/** Whether a details element is open is for the person to say. */
function isUserState(element, name) {
  return element.nodeName === "DETAILS" && name === "open";
}
