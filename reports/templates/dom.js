// Makes an element. Attributes that are undefined or false are left out.
function build(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== false) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

// A control with its label around it.
function labelled(text, control) {
  return build("label", { class: "control" }, build("span", {}, text), control);
}
