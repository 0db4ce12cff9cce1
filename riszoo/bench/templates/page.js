"use strict";
// What both pages use: elements, the content of the page, and tables that scroll sideways.
const data = JSON.parse(document.getElementById("data").textContent);
const element = id => document.getElementById(id);

function make(tag, attributes, ...children) {
  const node = Object.assign(document.createElement(tag), attributes);
  for (const [name, value] of Object.entries(attributes.aria || {})) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

for (const box of document.querySelectorAll(".scroll")) {
  const update = () => {
    const rest = box.scrollWidth - box.clientWidth;
    box.classList.toggle("wide", rest > 1);
    box.classList.toggle("end", box.scrollLeft >= rest - 1);
  };
  box.addEventListener("scroll", update);
  const observer = new ResizeObserver(update);
  observer.observe(box);
  observer.observe(box.firstElementChild);
}
