// Makes an element. Attributes that are undefined or false are left out.
function build(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== false) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

// The marker of a method beside its name; a plain square where there is no method.
function swatch(colour, outline = "M-5-5H5V5H-5z") {
  const shape = (tag, attributes) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    return made;
  };
  const drawing = shape("svg", { class: "key", viewBox: "-6 -6 12 12", "aria-hidden": "true" });
  drawing.append(shape("path", { d: outline, fill: colour }));
  return drawing;
}

// A control with its label around it.
function labelled(text, control) {
  return build("label", { class: "control" }, build("span", {}, text), control);
}
