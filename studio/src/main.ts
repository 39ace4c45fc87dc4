import { mount } from 'svelte';

import App from './App.svelte';
import './app.css';

// The server takes a token that is right out of the address itself. What is left is of an earlier start.
if (new URLSearchParams(location.search).has('token')) history.replaceState(null, '', location.pathname + location.hash);

mount(App, { target: document.getElementById('app')! });
