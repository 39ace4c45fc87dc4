import { mount } from 'svelte';

import App from './App.svelte';
import './app.css';

// The server removes a valid token from the address itself. A token that is left is from an earlier start.
if (new URLSearchParams(location.search).has('token')) history.replaceState(null, '', location.pathname + location.hash);

mount(App, { target: document.getElementById('app')! });
